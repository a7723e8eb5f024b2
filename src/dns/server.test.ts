import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { type DecodedPacket, decode, encode, type OptAnswer, type Packet } from 'dns-packet';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Forwarder, type Upstream } from './forwarder.js';
import { NameTable } from './names.js';
import { DnsServer } from './server.js';
import { readQuery } from './wire.js';

const HOME = '127.0.0.1';
/** Milliseconds for a forwarded question. */
const TIMES = { question: 1200, dead: 100, lasts: 800 };
let names: NameTable;
let server: DnsServer;
let upstreams: Upstream[];
let closing: (() => void)[];

beforeEach(async () => {
  names = new NameTable();
  const places = (last: number) => [{ network: 'town', ipv4: `10.1.0.${last}`, ipv6: `fd01::${last}` }];
  names.update({
    networks: [
      [
        'town',
        {
          name: 'town',
          ipv4: { cidr: '10.1.0.0/24', gateway: '10.1.0.1' },
          ipv6: { cidr: 'fd01::/64', gateway: 'fd01::1' },
        },
      ],
    ],
    objects: [
      ['a/web', { key: 'a/web', namespace: 'a', name: 'web', places: places(2) }],
      [
        'a/four',
        { key: 'a/four', namespace: 'a', name: 'four', places: [{ network: 'town', ipv4: '10.1.0.4' }] },
      ],
      ...Array.from({ length: 50 }, (_, i) => {
        const key = `a/m${i}`;
        return [key, { key, namespace: 'a', name: 'many', places: places(10 + i) }] as const;
      }),
    ],
  });
  upstreams = [];
  closing = [];
  server = new DnsServer(names, new Forwarder(() => upstreams, { all: 512, client: 64 }, TIMES));
  await server.listen({ address: HOME, port: 0, network: 'town' });
});
afterEach(async () => {
  for (const close of closing) close();
  await server.close();
});

const port = (): number => server.portOf(HOME) ?? 0;

function question(name: string, type: string, more: Partial<Packet> = {}): Buffer {
  return encode({ type: 'query', id: 7, flags: 0x100, questions: [{ name, type: type as 'A' }], ...more });
}

function edns(udpPayloadSize: number, ednsVersion: number): OptAnswer {
  return {
    type: 'OPT',
    name: '.',
    udpPayloadSize,
    ednsVersion,
    extendedRcode: 0,
    flags: 0,
    flag_do: false,
    options: [],
  };
}

/** Sends one datagram; the answer, or undefined if none comes within `wait` milliseconds. */
function udp(message: Buffer, wait = 2000): Promise<Buffer | undefined> {
  return new Promise((resolve) => {
    const socket = createSocket('udp4');
    const finish = (answer?: Buffer): void => {
      clearTimeout(timer);
      socket.close();
      resolve(answer);
    };
    const timer = setTimeout(finish, wait);
    socket.on('message', (answer) => finish(answer));
    socket.send(message, port(), HOME);
  });
}

async function ask(
  name: string,
  type = 'A',
  more: Partial<Packet> = {},
): Promise<DecodedPacket & { rcode: string }> {
  const answer = await udp(question(name, type, more));
  if (answer === undefined) throw new Error('no answer');
  return decode(answer) as DecodedPacket & { rcode: string };
}

const data = (packet: DecodedPacket): unknown[] =>
  (packet.answers ?? []).map((answer) => (answer as { data: unknown }).data);

/** A name server that answers each question with a text record, `size` bytes long. */
async function upstream(size: number): Promise<void> {
  const socket = createSocket('udp4');
  closing.push(() => socket.close());
  const reply = (message: Buffer, limit: number): Buffer => {
    const { id, questions = [] } = decode(message);
    const name = questions[0]?.name ?? '';
    const texts = Array.from({ length: Math.ceil(size / 250) }, () => 'x'.repeat(250));
    const whole = encode({
      type: 'response',
      id: id ?? 0,
      questions,
      answers: [{ type: 'TXT', name, data: texts }],
    });
    if (whole.length <= limit) return whole;
    return encode({ type: 'response', id: id ?? 0, flags: 0x200, questions });
  };
  socket.on('message', (message, from) => socket.send(reply(message, 1232), from.port, from.address));
  await new Promise<void>((resolve) => socket.bind(0, HOME, resolve));
  const { createServer } = await import('node:net');
  const tcp = createServer((stream) => {
    stream.once('data', (chunk: Buffer) => {
      const answer = reply(chunk.subarray(2), 65535);
      const head = Buffer.alloc(2);
      head.writeUInt16BE(answer.length);
      stream.end(Buffer.concat([head, answer]));
    });
  });
  closing.push(() => tcp.close());
  const { port: at } = socket.address();
  await new Promise<void>((resolve) => tcp.listen(at, HOME, resolve));
  upstreams.push({ address: HOME, port: at });
}

/** Sends messages over one connection and reads as many answers. */
function tcp(messages: readonly Buffer[], pieces = 1): Promise<Buffer[]> {
  return new Promise((resolve, reject) => {
    const stream = connect(port(), HOME);
    const answers: Buffer[] = [];
    let received = Buffer.alloc(0);
    stream.on('data', (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      while (received.length >= 2 && received.length >= received.readUInt16BE(0) + 2) {
        const end = received.readUInt16BE(0) + 2;
        answers.push(received.subarray(2, end));
        received = received.subarray(end);
      }
      if (answers.length < messages.length) return;
      stream.destroy();
      resolve(answers);
    });
    stream.on('error', reject);
    const all = Buffer.concat(
      messages.map((message) => {
        const head = Buffer.alloc(2);
        head.writeUInt16BE(message.length);
        return Buffer.concat([head, message]);
      }),
    );
    const step = Math.ceil(all.length / pieces);
    for (let at = 0; at < all.length; at += step) stream.write(all.subarray(at, at + step));
  });
}

describe('DnsServer', () => {
  it('answers A, AAAA and PTR of containers, whatever the case', async () => {
    const a = await ask('WeB');
    expect([a.rcode, a.id, data(a), a.questions?.[0]?.name]).toEqual(['NOERROR', 7, ['10.1.0.2'], 'WeB']);
    expect([a.flag_aa, a.flag_ra, a.flag_rd]).toEqual([true, true, true]);
    expect(data(await ask('web.town', 'AAAA'))).toEqual(['fd01::2']);
    expect(data(await ask('2.0.1.10.in-addr.arpa', 'PTR'))).toEqual(['web.town']);
    const reverse = '2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa';
    expect(data(await ask(reverse, 'PTR'))).toEqual(['web.town']);
  });

  it('says that a name has no address of a family, rather than that there is no such name', async () => {
    for (const type of ['AAAA', 'MX', 'TXT', 'HTTPS']) {
      const answer = await ask('four', type);
      expect([type, answer.rcode, data(answer)]).toEqual([type, 'NOERROR', []]);
    }
    expect((await ask('99.0.1.10.in-addr.arpa', 'PTR')).rcode).toBe('NXDOMAIN');
  });

  it('gives all containers of one name, in turn, and cuts what does not fit', async () => {
    const short = await ask('many');
    expect([short.flag_tc, data(short).length]).toEqual([true, 30]); // (512 - 12 - 10) / 16
    expect(short.answers?.map(({ name }) => name)).toEqual(Array<string>(30).fill('many'));
    const ends = await ask('many', 'AAAA', { additionals: [edns(100, 0)] });
    expect([ends.flag_tc, ends.additionals?.length]).toEqual([true, 1]);
    const opt = edns(4096, 0);
    const whole = await ask('many', 'A', { additionals: [opt] });
    expect([whole.flag_tc, data(whole).length, whole.additionals?.[0]?.type]).toEqual([false, 50, 'OPT']);
    const again = await ask('many', 'A', { additionals: [opt] });
    expect(data(again)[0]).not.toBe(data(whole)[0]);
    expect(data(decode((await tcp([question('many', 'AAAA')]))[0] ?? Buffer.alloc(0)))).toHaveLength(50);
  });

  it('repeats the question byte for byte, of types and letters that it does not know too', async () => {
    for (const name of ['WeB', 'w\u00e9b', 'x']) {
      const asked = question(name, 'A');
      asked.writeUInt16BE(65_399, asked.length - 4); // a type of private use
      asked[13] = 0xff; // no UTF-8
      const answer = (await udp(asked)) ?? Buffer.alloc(0);
      expect(answer.subarray(12, asked.length).equals(asked.subarray(12))).toBe(true);
    }
    const pointer = Buffer.from('000701000001000000000000c00c00010001', 'hex');
    expect(((await udp(pointer)) ?? Buffer.alloc(4)).readUInt16BE(2) & 0xf).toBe(1);
  });

  it('knows localhost itself, whoever has that name', async () => {
    const places = [{ network: 'town', ipv4: '10.1.0.99' }];
    const localhost = { key: 'a/localhost', namespace: 'a', name: 'localhost', places };
    names.update({ networks: [], objects: [['a/localhost', localhost]] });
    for (const name of ['localhost', 'LocalHost', 'web.localhost'])
      expect([name, data(await ask(name)), data(await ask(name, 'AAAA'))]).toEqual([
        name,
        ['127.0.0.1'],
        ['::1'],
      ]);
    expect(await ask('localhost', 'MX')).toMatchObject({ rcode: 'NOERROR', answers: [] });
    expect(data(await ask('localhost.town'))).toEqual(['10.1.0.99']);
  });

  it('tells a dot in a label from one between labels', async () => {
    const asked = question('web.town', 'A');
    const label = Buffer.from('\x08web.town\0');
    const odd = Buffer.concat([asked.subarray(0, 12), label, asked.subarray(-4)]);
    const rcode = async (message: Buffer) => ((await udp(message)) ?? Buffer.alloc(4)).readUInt16BE(2) & 0xf;
    expect([await rcode(asked), await rcode(odd)]).toEqual([0, 2]); // nobody else is there to ask
  });

  it('takes one record of EDNS, and repeats what it says of DNSSEC', async () => {
    const twice = await udp(question('web', 'A', { additionals: [edns(1232, 0), edns(1232, 0)] }));
    expect((twice?.readUInt16BE(2) ?? 0) & 0xf).toBe(1);
    for (const flag of [0, 0x8000]) {
      const [opt] =
        (await ask('web', 'A', { additionals: [{ ...edns(1232, 0), flags: flag }] })).additionals ?? [];
      expect((opt as OptAnswer).flags).toBe(flag);
    }
  });

  it('answers over TCP with as much as a message can have', async () => {
    const objects = Array.from({ length: 5000 }, (_, i) => {
      const key = `a/h${i}`;
      const places = [{ network: 'town', ipv4: `10.1.${16 + (i >> 8)}.${i & 255}`, ipv6: `fd01::1:${i}` }];
      return [key, { key, namespace: 'a', name: `huge${'x'.repeat(59)}`, places }] as const;
    });
    names.update({ networks: [], objects });
    const [answer = Buffer.alloc(0)] = await tcp([question(`huge${'x'.repeat(59)}.town`, 'A')]);
    expect(data(decode(answer))).toHaveLength(Math.floor((65_535 - 12 - 74) / 16));
  });

  it('asks the next server when one can not answer, does not want to, or takes too long', async () => {
    const rcode = async (code: number): Promise<void> => {
      const socket = createSocket('udp4');
      closing.push(() => socket.close());
      socket.on('message', (message, from) => {
        message.writeUInt16BE(0x8180 | code, 2);
        if (code !== 16) socket.send(message, from.port, from.address);
      });
      await new Promise<void>((resolve) => socket.bind(0, HOME, resolve));
      upstreams.push({ address: HOME, port: socket.address().port });
    };
    for (const code of [2, 4, 5]) await rcode(code);
    expect((await ask('example.org', 'TXT')).rcode).toBe('SERVFAIL'); // the first one's answer
    await upstream(100);
    expect(data(await ask('example.org', 'TXT'))).toHaveLength(1);
    upstreams.splice(0);
    await rcode(3);
    await upstream(100);
    expect((await ask('example.org', 'TXT')).rcode).toBe('NXDOMAIN'); // that is an answer
    upstreams.splice(0);
    await rcode(16); // none
    await upstream(100);
    const begin = performance.now();
    expect(data(await ask('example.org', 'TXT'))).toHaveLength(1);
    const first = performance.now() - begin;
    for (let i = 0; i < 3; i++) expect(data(await ask('example.org', 'TXT'))).toHaveLength(1);
    expect(performance.now() - begin - first).toBeLessThan(TIMES.question / 4); // it is asked last now
  });

  it('says soon that nobody answers, and hears the servers when they are back', async () => {
    const silent = createSocket('udp4');
    closing.push(() => silent.close());
    await new Promise<void>((resolve) => silent.bind(0, HOME, resolve));
    for (let i = 0; i < 3; i++) upstreams.push({ address: HOME, port: silent.address().port });
    const timed = async (): Promise<readonly [string, number]> => {
      const begin = performance.now();
      return [(await ask('example.org', 'TXT')).rcode, performance.now() - begin];
    };
    const [code, first] = await timed();
    expect(code).toBe('SERVFAIL');
    expect(first).toBeGreaterThan(TIMES.question - 50);
    expect(first).toBeLessThan(TIMES.question * 1.4); // for all servers together
    const [again, second] = await timed();
    expect(again).toBe('SERVFAIL');
    expect(second).toBeLessThan(TIMES.question / 2);
    silent.on('message', (message, from) => {
      message.writeUInt16BE(0x8183, 2);
      silent.send(message, from.port, from.address);
    });
    expect((await timed())[0]).toBe('NXDOMAIN');
  });

  it('takes the answer of a server that needs longer than its turn', async () => {
    const slow = createSocket('udp4');
    closing.push(() => slow.close());
    const heard: Buffer[] = [];
    slow.on('message', (message, from) => {
      heard.push(message);
      if (heard.length > 1) return; // its first question is the one that is answered
      setTimeout(() => {
        message.writeUInt16BE(0x8183, 2);
        slow.send(message, from.port, from.address);
      }, TIMES.question / 2);
    });
    await new Promise<void>((resolve) => slow.bind(0, HOME, resolve));
    upstreams.push({ address: HOME, port: slow.address().port });
    const none = createSocket('udp4');
    closing.push(() => none.close());
    await new Promise<void>((resolve) => none.bind(0, HOME, resolve));
    upstreams.push({ address: HOME, port: none.address().port });
    expect((await ask('example.org', 'TXT')).rcode).toBe('NXDOMAIN');
    expect(heard.every((message) => message.readUInt16BE(0) === heard[0]?.readUInt16BE(0))).toBe(true);
  });

  it('asks the host for everything else, over the transport of the question', async () => {
    expect((await ask('example.org')).rcode).toBe('SERVFAIL'); // there is no name server
    await upstream(100);
    expect(data(await ask('example.org', 'TXT'))).toHaveLength(1);
    upstreams.splice(0);
    await upstream(5000);
    expect((await ask('example.org', 'TXT')).flag_tc).toBe(true);
    const [answer = Buffer.alloc(0)] = await tcp([question('example.org', 'TXT')]);
    expect(answer.length).toBeGreaterThan(5000);
    expect(server.counters).toMatchObject({ forwarded: 3, failed: 1 });
  });

  it('takes several questions on one connection, in pieces of any size', async () => {
    const answers = await tcp([question('web', 'A'), question('web', 'AAAA'), question('four', 'A')], 40);
    expect(answers.map((answer) => data(decode(answer)))).toEqual([['10.1.0.2'], ['fd01::2'], ['10.1.0.4']]);
  });

  it('answers what is no question with an error, and answers with nothing', async () => {
    const rcode = async (message: Buffer) => ((await udp(message)) ?? Buffer.alloc(4)).readUInt16BE(2) & 0xf;
    expect(await rcode(encode({ type: 'query', id: 1, questions: [] }))).toBe(1);
    const notify = question('web', 'A');
    notify.writeUInt16BE(4 << 11, 2);
    expect(await rcode(notify)).toBe(4);
    expect(await rcode(question('web', 'AXFR'))).toBe(5);
    expect(await rcode(question('web', 'A').subarray(0, 14))).toBe(1);
    const chaos = encode({
      type: 'query',
      id: 1,
      questions: [{ name: 'version.bind', type: 'TXT', class: 'CH' }],
    });
    expect(await rcode(chaos)).toBe(5);
    const version = edns(1232, 1);
    const answer = decode((await udp(question('web', 'A', { additionals: [version] }))) ?? Buffer.alloc(0));
    expect(answer.additionals?.[0]).toMatchObject({ type: 'OPT', extendedRcode: 1 });
    const response = question('web', 'A');
    response.writeUInt16BE(0x8000, 2);
    expect(await udp(response, 100)).toBeUndefined();
    expect(await udp(Buffer.from('short'), 100)).toBeUndefined();
  });

  it('never fails on junk', () => {
    const valid = question('web.town', 'A', {
      additionals: [edns(1232, 0)],
    });
    const changed = fc
      .array(fc.tuple(fc.nat(valid.length - 1), fc.nat(255)), { maxLength: 6 })
      .map((edits) => {
        const message = Buffer.from(valid);
        for (const [at, byte] of edits) message[at] = byte;
        return message;
      });
    const random = fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes));
    fc.assert(
      fc.property(fc.oneof(changed, random), (message) => {
        const read = readQuery(message);
        expect('query' in read || 'reply' in read || 'ignore' in read).toBe(true);
      }),
      { numRuns: 5000 },
    );
  });
});
