import { describe, expect, it } from 'vitest';
import { badDomainPattern, matchingPatterns } from './domains.js';

describe('domain names', () => {
  it('takes names and names below one', () => {
    for (const good of ['a.example', '*.example.com', 'WWW.Example.COM.', '_sip.example.org', 'xn--p1ai.a'])
      expect(badDomainPattern(good)).toBeUndefined();
    for (const bad of [
      '',
      'example',
      '*',
      '*.',
      '*.com',
      'a.*.b',
      '*a.b.c',
      'a..b',
      '-a.b',
      'a b.c',
      '10.0.0.0/8',
    ])
      expect([bad, badDomainPattern(bad)]).not.toEqual([bad, undefined]);
    expect(badDomainPattern(`${'a'.repeat(64)}.example`)).toBeDefined();
    expect(badDomainPattern(`${'a.'.repeat(130)}example`)).toBeDefined();
  });

  it('matches a wildcard with any number of labels, and not the name itself', () => {
    const patterns = new Set(['*.example.com', 'www.example.com', '*.b.example.com']);
    const match = (name: string): string[] => matchingPatterns(patterns, name);
    expect(match('www.example.com')).toEqual(['www.example.com', '*.example.com']);
    expect(match('a.b.example.com')).toEqual(['*.b.example.com', '*.example.com']);
    expect(match('example.com')).toEqual([]);
    expect(match('www.example.com.evil.org')).toEqual([]);
    expect(match('wwwexample.com')).toEqual([]);
  });
});
