// ssh2-client.mjs [--keep-open] PORT USER KEY KNOWN_HOSTS COMMAND: sends stdin to COMMAND.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

// NODE_PATH says where the package is, and only require() reads it.
const { Client } = createRequire(import.meta.url)('ssh2');
const keepOpen = process.argv[2] === '--keep-open';
const [port, username, key, knownHosts, command] = process.argv.slice(-5);
const hostKey = readFileSync(knownHosts, 'utf8').split(' ')[2].trim();
const client = new Client();
let status = 255;
client.on('ready', () => {
  client.exec(command, (error, stream) => {
    if (error) throw error;
    stream.on('exit', (code) => { status = code ?? 255; });
    stream.on('close', () => client.end());
    stream.on('error', () => {}); // The server refused the request, and closed the channel.
    stream.pipe(process.stdout);
    stream.stderr.pipe(process.stderr);
    process.stdin.pipe(stream, { end: !keepOpen });
  });
});
client.on('close', () => {
  process.stdin.destroy();
  process.exitCode = status;
});
client.connect({
  host: '127.0.0.1',
  port: Number(port),
  username,
  privateKey: readFileSync(key),
  hostVerifier: (offered) => offered.toString('base64') === hostKey,
});
