"""asyncssh-client.py [--keep-open] PORT USER KEY KNOWN_HOSTS COMMAND: sends stdin to COMMAND."""

import asyncio
import os
import sys
import warnings

# Its import warns about old ciphers of another library.
warnings.simplefilter("ignore")
import asyncssh  # noqa: E402


async def main():
    keep_open = sys.argv[1] == "--keep-open"
    port, user, key, known_hosts, command = sys.argv[-5:]
    async with asyncssh.connect(
        "127.0.0.1", int(port), username=user, client_keys=[key], known_hosts=known_hosts,
        agent_path=None, config=None,
    ) as connection:
        process = await connection.create_process(command, encoding=None)

        async def send():
            loop = asyncio.get_running_loop()
            try:
                while part := await loop.run_in_executor(None, os.read, 0, 1 << 16):
                    process.stdin.write(part)
                    await process.stdin.drain()
                if not keep_open:
                    process.stdin.write_eof()
            except OSError:
                # The server refused the request, and has closed the channel.
                pass

        sender = asyncio.ensure_future(send())
        out, error = await asyncio.gather(process.stdout.read(), process.stderr.read())
        await process.wait_closed()
        sender.cancel()
        sys.stdout.buffer.write(out)
        sys.stderr.buffer.write(error)
        sys.stdout.flush()
        sys.stderr.flush()
        # A thread may still read stdin: a server that refuses does not read it all.
        os._exit(process.exit_status)


asyncio.run(main())
