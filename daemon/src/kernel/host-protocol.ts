/** Operations of sq-host; native/src/host_ops.h has the same numbers and the fields of each. */
export const operation = {
  hello: 1,
  layerMount: 2,
  layerUnmount: 3,
  layerList: 4,
  cellMake: 5,
  cellAdopt: 6,
  cellKill: 7,
  cellLimit: 8,
  cellFreeze: 9,
  rootGive: 10,
  upperMount: 11,
  upperUnmount: 12,
  netnsPublish: 13,
  netnsWithdraw: 14,
  close: 15,
  netUpdate: 16,
  netStats: 17,
  netFlows: 18,
  netCut: 19,
  netShape: 20,
  netGate: 21,
  netClose: 22,
  capture: 23,
  poolMount: 24,
  poolUnmount: 25,
  poolFlush: 26,
  subvolumeSnapshot: 27,
  subvolumeRemove: 28,
  subvolumeUse: 29,
  compare: 30,
  cellDeadline: 31,
  upperForget: 32,
} as const;

/** Flags of `rootGive`. */
export const rootFlag = { fresh: 1, named: 2, again: 4 } as const;

export type Operation = keyof typeof operation;

/** Sent by sq-host on its own: u32 index, u32 pid of a cell's init that died. */
export const cellDiedEvent = 0x4001;

/** Sent by sq-host on its own: u32 index, u32 allowed, destination, u32 port, u32 protocol of a packet that the firewall logged. */
export const packetEvent = 0x4002;

/** Sent by sq-host on its own: the firewall's table is gone, and all links are closed. */
export const firewallGoneEvent = 0x4003;

/** Frames of a session; native/src/session.h has the same numbers. */
export const session = {
  exec: 1,
  stdin: 2,
  stdinEnd: 3,
  cancel: 4,
  stdout: 0x81,
  stderr: 0x82,
  exit: 0x83,
  failed: 0x84,
} as const;

/** Flags of a session's exit frame. */
export const exitFlag = { timedOut: 1, cancelled: 2, stdoutTruncated: 4, stderrTruncated: 8, signalled: 16 } as const;
