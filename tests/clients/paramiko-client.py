"""paramiko-client.py [--keep-open] PORT USER KEY KNOWN_HOSTS COMMAND: sends stdin to COMMAND."""

import os
import sys
import threading

import paramiko

keep_open = sys.argv[1] == "--keep-open"
port, user, key, known_hosts, command = sys.argv[-5:]
client = paramiko.SSHClient()
client.load_host_keys(known_hosts)
client.connect(
    "127.0.0.1", int(port), user, pkey=paramiko.Ed25519Key.from_private_key_file(key),
    look_for_keys=False, allow_agent=False,
)
channel = client.get_transport().open_session()
channel.exec_command(command)


def send():
    try:
        while part := os.read(0, 1 << 16):
            channel.sendall(part)
        if not keep_open:
            channel.shutdown_write()
    except (OSError, EOFError):
        # The server has answered and closed the channel, or the main thread has closed the
        # connection after the answer (EOFError).
        pass


sender = threading.Thread(target=send, daemon=True)
sender.start()
sys.stdout.buffer.write(channel.makefile("rb").read())
sys.stderr.buffer.write(channel.makefile_stderr("rb").read())
status = channel.recv_exit_status()
client.close()
sys.stdout.flush()
sys.stderr.flush()
# The thread may still read stdin: a server that refuses does not read it all.
os._exit(status)
