// archiver.mjs VARIANT SOURCE: writes a tar of SOURCE with npm's 'archiver'.
import { TarArchive } from 'archiver';

const [variant, source] = process.argv.slice(2);
const archive = new TarArchive();
archive.pipe(process.stdout);
archive.directory(source, variant === 'root' ? false : 'dist');
await archive.finalize();
