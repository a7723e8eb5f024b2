/**
 * A network driver for Docker that does nothing, at once: what dockerd spends by itself on a container in a network of a
 * plugin. With a number of containers it gives each of them a device that it made when it started, in the network
 * namespace that it is in: what the least that a driver can do costs. A process of its own, because who measures waits
 * for `docker`.
 *
 *   node null-driver.js SOCKET [CONTAINERS]
 */
import { execFileSync } from 'node:child_process';
import { createServer } from 'node:http';

const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';

const [socket, containers = '0'] = process.argv.slice(2);
const count = Number(containers);
let joined = 0;

function join(): object {
  if (joined >= count) return { DisableGatewayService: true };
  return {
    InterfaceName: { SrcName: `bareb${joined++}`, DstPrefix: 'eth' },
    DisableGatewayService: true,
  };
}

const ANSWERS: Readonly<Record<string, object>> = {
  '/Plugin.Activate': { Implements: ['NetworkDriver'] },
  '/NetworkDriver.GetCapabilities': { Scope: 'local', ConnectivityScope: 'local' },
  '/NetworkDriver.CreateEndpoint': { Interface: {} },
  '/NetworkDriver.EndpointOperInfo': { Value: {} },
};

const pairs = Array.from({ length: count }, (_, i) => `link add barea${i} type veth peer name bareb${i}\n`);
execFileSync('ip', ['-batch', '-'], { input: pairs.join('') });
createServer((request, response) => {
  request.resume().on('end', () => {
    const answer = request.url === '/NetworkDriver.Join' ? join() : ANSWERS[request.url ?? ''];
    const body = Buffer.from(JSON.stringify(answer ?? {}));
    response.writeHead(200, { 'content-type': CONTENT_TYPE, 'content-length': body.length });
    response.end(body);
  });
}).listen(socket, () => console.log('ready'));
