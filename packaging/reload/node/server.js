'use strict';
// A service that receives its port from systemd (blog.socket, blog.service). Its
// answer names the release, so that [health] can distinguish the new process from the old.

const http = require('node:http');
const path = require('node:path');

// The release that this process runs. The path of a working directory contains no
// symlinks, so this stays true after `current` changes.
const release = path.basename(process.cwd());

// sd_listen_fds(3): the first descriptor is 3. It is for this process only if
// LISTEN_PID is the id of this process.
const passed = Number(process.env.LISTEN_PID) === process.pid &&
    Number(process.env.LISTEN_FDS) === 1;
const where = passed ? { fd: 3 } : { host: '127.0.0.1', port: Number(process.env.PORT || 3000) };

let stopping = false;

const server = http.createServer((request, response) => {
    // Otherwise a client keeps the connection, and its next request fails.
    if (stopping) {
        response.setHeader('Connection', 'close');
    }
    response.setHeader('Content-Type', 'text/plain; charset=utf-8');
    if (request.url === '/health') {
        // Check here whether this release can serve: the database answers, the
        // configuration is present. Answer 503 if not.
        response.end(`ok ${release}\n`);
        return;
    }
    response.end(`hello from ${release}\n`);
});

server.listen(where);

process.on('SIGTERM', () => {
    stopping = true;
    // Accepts no new connection and answers the requests in progress. The process
    // ends when nothing is left to do.
    server.close();
    server.closeIdleConnections();
});
