// node origin.js PORT: Node's own HTTP server; writes its books as report.py does.
const http = require('http');
const crypto = require('crypto');
const fs = require('fs');

http.createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    const body = Buffer.concat(pieces);
    const line = JSON.stringify({
      method: request.method,
      sha256: crypto.createHash('sha256').update(body).digest('hex'),
      size: body.length,
      target: request.url,
    }) + '\n';
    fs.appendFileSync(process.env.ORIGIN_BOOKS, line);
    response.writeHead(200, { 'Content-Length': Buffer.byteLength(line) });
    response.end(line);
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
