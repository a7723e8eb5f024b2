import { describe, expect, it } from 'vitest';
import { parseNetworkOptions } from './options.js';

describe('parseNetworkOptions', () => {
  it('has defaults, and understands what the bridge driver calls the same', () => {
    expect(parseNetworkOptions(undefined)).toEqual({
      mode: 'routed',
      masquerade: true,
      handover: false,
      names: 'docker',
      namespace: 'default',
    });
    expect(
      parseNetworkOptions({
        mode: 'bridge',
        'com.docker.network.driver.mtu': '1400',
        'com.docker.network.bridge.enable_ip_masquerade': 'false',
        'com.docker.network.container_iface_prefix': 'net',
        'com.docker.network.bridge.default_bridge': 'false',
        'com.docker.network.bridge.enable_icc': 'true',
        'com.docker.network.bridge.host_binding_ipv4': '127.0.0.1',
        namespace: 'shop',
        network: 'town',
        handover: 'true',
      }),
    ).toEqual({
      mode: 'bridge',
      mtu: 1400,
      masquerade: false,
      handover: true,
      names: 'docker',
      namespace: 'shop',
      hostAddress: '127.0.0.1',
      devicePrefix: 'net',
      network: 'town',
    });
  });

  it.each([
    [{ mod: 'bridge' }, /option mod is unknown; did you mean "mode"\?/],
    [{ mode: 'macvlan' }, /option mode must be routed or bridge, not "macvlan"/],
    [{ mtu: '12' }, /option mtu must be a number from 576 to 65535, not "12"/],
    [{ masquerade: 'no' }, /option masquerade must be true or false, not "no"/],
    [{ handover: '1' }, /option handover must be true or false, not "1"/],
    [{ names: 'Docker' }, /option names must be docker or sluice, not "Docker"/],
    [{ namespace: 'No Way' }, /option namespace must be a name/],
    [{ hostAddress: 'localhost' }, /option hostAddress must be an address of the host, not "localhost"/],
    [
      { 'com.docker.network.bridge.enable_icc': 'false' },
      /enable_icc must be true, not "false": .*NetworkPolicy/,
    ],
    [{ 'com.docker.network.bridge.name': 'br9' }, /bridge\.name cannot be given/],
    [{ 'com.docker.network.driver.mut': '1400' }, /did you mean "com\.docker\.network\.driver\.mtu"\?/],
    [{ 'com.docker.network.bridge.enable_ic': 'false' }, /did you mean .*enable_icc/],
    [{ devicePrefix: '7 of' }, /devicePrefix must be the start of a device's name/],
    [
      { 'com.docker.network.bridge.gateway_mode_ipv4': 'isolated' },
      /gateway_mode_ipv4 must be nat, not "isol/,
    ],
  ])('refuses %j', (given, message) => {
    expect(() => parseNetworkOptions(given)).toThrow(message);
  });
});
