// node-zstd.mjs VARIANT: compresses stdin with the zstd streams of Node.
import { createZstdCompress, zstdCompressSync } from 'node:zlib';
import { buffer } from 'node:stream/consumers';

if (process.argv[2] === 'stream') {
  process.stdin.pipe(createZstdCompress()).pipe(process.stdout);
} else {
  process.stdout.write(zstdCompressSync(await buffer(process.stdin)));
}
