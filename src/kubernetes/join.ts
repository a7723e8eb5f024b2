/** What main.ts needs to make this node part of a cluster. */
export { ApiClient } from './client.js';
export { Cluster } from './cluster.js';
export { inClusterAccess, kubeconfigAccess } from './credentials.js';
export { ClusterMetrics } from './metrics.js';
