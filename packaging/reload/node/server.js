'use strict';
// A service that systemd gives its port, as blog.socket and blog.service do.
// It says which release it is, so that [health] can tell it from the one before.

const http = require('node:http');
const path = require('node:path');

// The release this process was started in. A working directory has no links in
// its path, so this stays true when `current` moves on.
const release = path.basename(process.cwd());

// sd_listen_fds(3): the first descriptor is 3, and meant for us only if
// LISTEN_PID is ours.
const passed = Number(process.env.LISTEN_PID) === process.pid &&
    Number(process.env.LISTEN_FDS) === 1;
const where = passed ? { fd: 3 } : { host: '127.0.0.1', port: Number(process.env.PORT || 3000) };

let stopping = false;

const server = http.createServer((request, response) => {
    // A client that keeps its connection would be cut off in its next request.
    if (stopping) {
        response.setHeader('Connection', 'close');
    }
    response.setHeader('Content-Type', 'text/plain; charset=utf-8');
    if (request.url === '/health') {
        // Here belongs what makes this release fit to serve: database reached,
        // configuration present. 503 if not.
        response.end(`ok ${release}\n`);
        return;
    }
    response.end(`hello from ${release}\n`);
});

server.listen(where);

process.on('SIGTERM', () => {
    stopping = true;
    // Accepts no more, answers what is under way, then the process is out of work.
    server.close();
    server.closeIdleConnections();
});
