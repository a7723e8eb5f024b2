import { describe, expect, it } from 'vitest';
import { summarizeVerifierLog, verifierSummaryText } from './verifier-log.js';

/** Logs as the kernels print them (level 1). */
const NEW_KERNEL = `0: R1=ctx() R10=fp0
; int unchecked(struct __sk_buff *skb) @ rejected.bpf.c:20
0: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))
1: (63) *(u32 *)(r10 -4) = r1
; __u64 *value = bpf_map_lookup_elem(&table, &key); @ rejected.bpf.c:23
5: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=table,ks=4,vs=8)
; return *value; @ rejected.bpf.c:25
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
verification time 87 usec
stack depth 4
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`;

const OLD_KERNEL = `Unrecognized arg#0 type PTR
; __u64 *value = bpf_map_lookup_elem(&table, &key);
5: (85) call bpf_map_lookup_elem#1
; return *value;
6: (79) r0 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`;

const TOO_LARGE = `; if (++i < n)
1203: (2d) if r1 > r2 goto pc-5
from 1203 to 1199: R0=scalar() R10=fp0
1199: (07) r1 += 1
BPF program is too large. Processed 1000001 insn
processed 1000001 insns (limit 1000000) max_states_per_insn 4 total_states 9 peak_states 9 mark_read 1
`;

const HELPER = `12: (85) call bpf_redirect_peer#155
program of this type cannot use helper bpf_redirect_peer#155
processed 9 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
`;

describe('summarizeVerifierLog', () => {
  it('finds reason, instruction, source and its position', () => {
    expect(summarizeVerifierLog(NEW_KERNEL)).toEqual({
      reason: "R0 invalid mem access 'map_value_or_null'",
      instruction: 6,
      source: 'return *value;',
      position: 'rejected.bpf.c:25',
    });
    expect(verifierSummaryText(NEW_KERNEL)).toBe(
      "rejected by the verifier: R0 invalid mem access 'map_value_or_null', instruction 6, at `return *value;` (rejected.bpf.c:25)",
    );
  });

  it('does without what older kernels do not print', () => {
    expect(summarizeVerifierLog(OLD_KERNEL)).toEqual({
      reason: "R0 invalid mem access 'map_value_or_null'",
      instruction: 6,
      source: 'return *value;',
    });
    expect(summarizeVerifierLog(TOO_LARGE)).toEqual({
      reason: 'BPF program is too large. Processed 1000001 insn',
      instruction: 1199,
      source: 'if (++i < n)',
    });
    expect(summarizeVerifierLog(HELPER)).toEqual({
      reason: 'program of this type cannot use helper bpf_redirect_peer#155',
      instruction: 12,
    });
  });

  it('says something for any text', () => {
    expect(verifierSummaryText('')).toBe('rejected by the verifier: the kernel gave no reason');
    expect(verifierSummaryText('odd')).toBe('rejected by the verifier: odd');
  });
});
