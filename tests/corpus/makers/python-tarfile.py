"""python-tarfile.py VARIANT SOURCE: writes a tar of SOURCE with Python's tarfile."""

import io
import os
import sys
import tarfile
import time

variant, source = sys.argv[1:]
os.chdir(source)
formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
kind = formats.get(variant, tarfile.DEFAULT_FORMAT)
headers = {"comment": "made by python"} if variant == "comment" else None
with tarfile.open(
    fileobj=sys.stdout.buffer, mode="w|", format=kind, pax_headers=headers
) as tar:
    if variant == "empty-arcname":
        tar.add(".", arcname="")
    elif variant == "names":
        for name in sorted(os.listdir()):
            tar.add(name)
    elif variant == "memory":
        for name, mode in [("index.html", 0o644), ("bin/serve", 0o755)]:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = 5, mode, time.time()
            tar.addfile(member, io.BytesIO(b"12345"))
    else:
        tar.add(".")
