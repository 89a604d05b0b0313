const kibi = 1024;

/** of a header list, as HTTP/1.1 has it for a head */
const maxHeaderList = 64 * kibi;

/** What either side of the proxy may do over one connection of HTTP/2. */
export const http2Limits = {
  settings: {
    enablePush: false,
    initialWindowSize: 256 * kibi,
    maxHeaderListSize: maxHeaderList,
    maxConcurrentStreams: 100,
  },
  /** megabytes, of all that one connection holds: the windows bound bodies, this bounds the rest */
  maxSessionMemory: 8,
  maxHeaderListPairs: 512,
  maxOutstandingPings: 4,
  maxOutstandingSettings: 4,
  maxSessionInvalidFrames: 50,
  maxSessionRejectedStreams: 50,
} as const;

/** of one connection, for all its streams together: what nobody has read is at most this */
export const connectionWindow = 1024 * kibi;
/** streams that a client may reset before they were answered, at once, and again each second */
export const maxResets = { burst: 200, perS: 33 };
