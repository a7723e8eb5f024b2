/**
 * A network driver for Docker that does nothing, at once: what dockerd spends by itself on a container in a network of a
 * plugin. A process of its own, because who measures waits for `docker`.
 *
 *   node null-driver.js SOCKET
 */
import { createServer } from 'node:http';

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';

const ANSWERS: Readonly<Record<string, object>> = {
  '/Plugin.Activate': { Implements: ['NetworkDriver'] },
  '/NetworkDriver.GetCapabilities': { Scope: 'local', ConnectivityScope: 'local' },
  '/NetworkDriver.CreateEndpoint': { Interface: {} },
  '/NetworkDriver.EndpointOperInfo': { Value: {} },
  '/NetworkDriver.Join': { DisableGatewayService: true },
};

const [socket] = process.argv.slice(2);
createServer((request, response) => {
  request.resume().on('end', () => {
    const body = Buffer.from(JSON.stringify(ANSWERS[request.url ?? ''] ?? {}));
    response.writeHead(200, { 'content-type': CONTENT_TYPE, 'content-length': body.length });
    response.end(body);
  });
}).listen(socket, () => console.log('ready'));
