import { Command } from 'commander';
import type { AgentOptions } from '../../agent-config.js';
import type { CliContext } from '../context.js';
import { CONFIG_FILES, sections } from '../help.js';

/** `sluice agent`. */
export function agentCommand(context: CliContext): Command {
  return new Command('agent')
    .summary('run the agent in the foreground')
    .description(
      "Runs the agent: it loads the BPF programs, applies the definitions' folder, watches it, and serves " +
        'the commands and the metrics. What an earlier agent left in the kernel is adopted. When the agent ' +
        'ends, networks and policies stay in force; only "sluice down" removes them.',
    )
    .option('--config <file>', 'configuration file')
    .option('--kubernetes', 'this host is a node of a cluster: what that has is in force here')
    .option('--kubeconfig <file>', 'how to reach its API; default: the service account of the pod')
    .option('--node-name <name>', 'name of the node; default: $NODE_NAME, or the name of the host')
    .addHelpText(
      'after',
      sections({
        notes: [
          "Signals:\n  SIGTERM, SIGINT  stop, leaving the kernel as it is\n  SIGHUP           read the definitions' folder again now",
          'Configuration (YAML; every setting may be left out):\n' +
            '  apiVersion: sluice.dev/v1alpha1\n' +
            '  kind: AgentConfig\n' +
            '  instance: default                    # tells agents on one machine apart\n' +
            '  stateDir: /var/lib/sluice\n' +
            '  runDir: /run/sluice\n' +
            '  socket: /run/sluice/sluice.sock      # default: sluice.sock in runDir\n' +
            '  cniSocket: /run/sluice/cni.sock      # default: cni.sock in runDir; "" for none\n' +
            '  pinPath: /sys/fs/bpf/sluice\n' +
            '  cgroupRoot: /sys/fs/cgroup           # default: the cgroup2 mount; "" for none\n' +
            '  uplinks: auto                        # or a list of devices\n' +
            '  xdp: auto                            # services on uplinks in XDP; or native, generic, off\n' +
            '  definitions: /etc/sluice/definitions # "" for none\n' +
            '  metricsAddress: 127.0.0.1:9644       # "" for none\n' +
            '  flowEntries: auto                    # or a number; two for each flow\n' +
            '  maxEndpointIndex: 65536\n' +
            '  policyPeerEntries: 262144\n' +
            '  policyPortEntries: 131072\n' +
            '  addressEntries: 131072\n' +
            '  cidrEntries: 65536\n' +
            '  hostPortEntries: 16384\n' +
            '  snatPorts: auto                      # or {min: 30000, max: 39999}\n' +
            "  dns: true                            # serve names at the networks' gateways\n" +
            '  dnsUpstreams: auto                   # or a list of addresses; default: /etc/resolv.conf\n' +
            '  dockerPlugin: /run/docker/plugins/sluice.sock # "" for none (default of other instances)\n' +
            '  dockerApi: /run/docker.sock          # where Docker says what labels a container has\n' +
            '  nodeName: ""                         # default: the name of the host\n' +
            '  nodeAddresses: auto                  # or a list; as other nodes know this one\n' +
            '  nodeRouting: none                    # to pods of other nodes: overlay (VXLAN), direct (one segment),\n' +
            '                                       # none (the network between the nodes knows the ranges)\n' +
            '  vxlanPort: 4789\n' +
            '  vxlanId: 1\n' +
            '  podCidrs: []                         # ranges of pods in the whole cluster: never masqueraded\n' +
            '  nodeEncryption: none                 # or wireguard: with nodeRouting overlay\n' +
            '  wireguardPort: 51820\n' +
            '  zone: ""                             # for endpoints near by; else the label of the Node\n' +
            '  serviceCidrs: [10.96.0.0/12, fd00:96::/112]\n' +
            '  nodePorts: {min: 30000, max: 32767}\n' +
            '  nodePortAddresses: all               # or a list of CIDRs; 127.0.0.1 and ::1 too\n' +
            '  serviceEntries: 65536\n' +
            '  backendEntries: 65536\n' +
            '  failsafePorts: {inbound: [22/TCP], outbound: [22/TCP]} # no HostPolicy closes them\n' +
            '  hostPrefixEntries: 524288            # addresses and CIDRs in HostPolicies and their lists\n' +
            '  kubernetes:                          # this host is a node of a cluster; the same as --kubernetes\n' +
            '    kubeconfig: ""                     # default: the service account of the pod\n' +
            '    network: pods                      # network of the pods; its ranges are podCIDRs of the node\n' +
            '    cniBinDir: /opt/cni/bin            # the plugin is put there when pods can be made; "" for not\n' +
            '    cniConfDir: /etc/cni/net.d\n' +
            '    cniName: sluice\n' +
            '  nodeRouting: none                    # how pods of other nodes are reached: overlay, direct, none\n' +
            '  nodeAddresses: auto                  # or a list: by which other nodes know this one\n' +
            '  podCidrs: []                         # ranges of the cluster; what no node has in them is dropped\n' +
            '  vxlanPort: 4789\n' +
            '  vxlanId: 1\n' +
            '  etcd:                                # hosts that share networks and policies (docs/nodes.md)\n' +
            '    endpoints: [http://10.0.0.1:2379]\n' +
            '    prefix: /sluice\n' +
            '    leaseSeconds: 120                  # without an agent for so long the host counts as gone\n' +
            '    blockLength4: 26                   # part of a shared range that a host has\n' +
            '    blockLength6: 80\n' +
            '    ca: ""                             # with cert and key: PEM files for https\n' +
            '  logLevel: info                       # trace, debug, info, warn, error\n' +
            '  hooks: auto                          # or tcx, clsact',
        ],
        examples: [
          ['sluice agent', 'with the default settings'],
          ['sluice agent --kubernetes', 'as a pod of a DaemonSet'],
          ['sluice agent --kubeconfig /etc/kubernetes/kubelet.conf', 'as a process of a node'],
          ['sluice agent --config /etc/sluice/blue.yaml', 'a second agent with its own settings'],
        ],
        failed: 'not started: one line says why',
        exit: [[70, 'internal error: the log has it']],
        files: [
          ...CONFIG_FILES,
          ['/etc/sluice/definitions', 'definitions that are watched'],
          ['/run/sluice/sluice.sock', 'socket for the commands, for root only'],
          ['/run/sluice/cni.sock', 'socket for the CNI plugin, for root only'],
          ['/var/lib/sluice', 'address leases and the applied definitions'],
          ['/sys/fs/bpf/sluice', 'pinned programs and maps'],
        ],
      }),
    )
    .action(
      context.action<AgentOptions>(async (options) => {
        const { runAgent } = await import('../../start.js');
        return runAgent(options);
      }),
    );
}
