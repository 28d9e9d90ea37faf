// tar-fs.mjs SOURCE: writes a tar of SOURCE with npm's 'tar-fs'.
import { pack } from 'tar-fs';

pack(process.argv[2]).pipe(process.stdout);
