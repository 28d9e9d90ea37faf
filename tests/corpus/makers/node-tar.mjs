// node-tar.mjs VARIANT SOURCE: writes a tar of SOURCE with npm's 'tar'.
import { create } from 'tar';

const [variant, cwd] = process.argv.slice(2);
const options = {
  default: {},
  portable: { portable: true },
  noPax: { noPax: true },
  prefix: { prefix: 'dist' },
}[variant];
create({ cwd, ...options }, ['.']).pipe(process.stdout);
