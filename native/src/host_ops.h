/* What sq-host does for squashd: one request, one answer. The numbers are the wire's; daemon/src/kernel/host-protocol.ts has the same. */
#ifndef SQ_HOST_OPS_H
#define SQ_HOST_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "cell.h"
#include "cgroup.h"
#include "failure.h"
#include "frame.h"
#include "house.h"
#include "network.h"

enum operation {
  OP_HELLO = 1,      /* run dir, data dir, u32 uid base, u32 subnet or 0, IPv6 subnet or zeroes, u32 cgroup version, paths (1 or 4) → u32 inherited */
  OP_LAYER_MOUNT,    /* name, image relative to the data dir, type */
  OP_LAYER_UNMOUNT,  /* name */
  OP_LAYER_LIST,     /* → u32 count, names */
  OP_CELL_MAKE,      /* u32 index, u32 nested userns → u32 pid, u64 start time */
  OP_CELL_ADOPT,     /* u32 index, u32 pid, u64 start time */
  OP_CELL_KILL,      /* u32 index; answers when nothing of it is left */
  OP_CELL_LIMIT,     /* u32 index, u64 memory bytes, u32 cpu µs per 100 ms, u32 pids */
  OP_CELL_FREEZE,    /* u32 index, u32 frozen; ETIME instead of thawing a cell whose deadline has passed, which is killed */
  OP_ROOT_GIVE,      /* u32 index, u32 flags, hostname, upper's mount point, u32 count, layers, topmost first: name, u32 index of its owner or ~0 */
  OP_UPPER_MOUNT,    /* mount point, image or "" or "pool/" and a subvolume, u64 size (of a subvolume: 0 if it exists), u32 index */
  OP_UPPER_UNMOUNT,  /* mount point */
  OP_NETNS_PUBLISH,  /* u32 index, name */
  OP_NETNS_WITHDRAW, /* name */
  OP_CLOSE,          /* unpin the mount namespace; sq-host is of no use afterwards */
  OP_NET_UPDATE,     /* elements of the firewall's sets: see firewall.h */
  OP_NET_STATS,      /* u32 index → u64 bytes and packets from the cell, to the cell, packets refused */
  OP_NET_FLOWS,      /* u32 index → u32 count, flows (destination, u16 destination port and source port, u32 protocol, with bit 8 if redirected) */
  OP_NET_CUT,        /* u32 index, u32 count, flows */
  OP_NET_SHAPE,      /* u32 index, u64 bytes a second to the cell, u64 from it; 0 = unlimited */
  OP_NET_GATE,       /* u32 open: let packets pass the links of all known cells again, or none */
  OP_NET_CLOSE,      /* remove the gateway's addresses from the host */
  OP_CAPTURE,        /* image relative to the data dir, u64 most bytes, u32 count, then u32 index, ~0 or ~1, upper's mount point or layer's name → u64 bytes */
  OP_POOL_MOUNT,     /* image's name in the data dir, or "" if that is on a btrfs itself */
  OP_POOL_UNMOUNT,
  OP_POOL_FLUSH,     /* answers when all that was written so far is on the disk */
  OP_SUBVOLUME_SNAPSHOT, /* source, name → u64 bytes of its files */
  OP_SUBVOLUME_REMOVE,   /* name */
  OP_SUBVOLUME_USE,  /* name → u64 bytes of its files */
  OP_COMPARE,        /* output as of a capture, u32 flags, u64 most bytes of a content and of the output, path or "", old and new stack as of a capture → u64 bytes */
  OP_CELL_DEADLINE,  /* u32 index, u64 ms of CLOCK_BOOTTIME or 0 for none; ETIME when the one before has passed */
  OP_UPPER_FORGET,   /* mount point of an upper that no overlay is used of → u64 files that forgot of which of a layer they are copies */
  OP_COUNT,
  EVENT_CELL_DIED = 0x4001, /* u32 index, u32 pid */
  EVENT_FIREWALL_GONE = 0x4003, /* somebody removed it, and no packet passes any link until OP_NET_GATE */
  EVENT_PACKET = 0x4002     /* u32 index, u32 allowed, destination, u32 port, u32 protocol; addresses are as in address.h */
};

struct cell {
  pid_t pid; /* 0: none known */
  int pidfd;
  bool making, killing;
  int report; /* pipe of the maker */
  pid_t maker;
  uint32_t request; /* that waits for the making or the killing */
  uint64_t deadline;
};

/* Of OP_ROOT_GIVE: the upper is new; the files that name hosts are to be written; the cell has a root already, which goes first. */
enum root_flags { ROOT_FRESH = 1, ROOT_NAMED = 2, ROOT_AGAIN = 4 };

/* Captures at a time; each is a process. */
enum { MAX_CAPTURES = 8 };

struct capture_job {
  bool busy;
  int report; /* pipe of the process */
  uint32_t request;
  uint16_t type;
};

/* Processes that work on the pool. */
enum { MAX_POOL_WORKERS = 4 };

struct pool_worker {
  bool started, busy;
  int link;
  uint32_t request;
  uint16_t type;
};

struct host {
  int link, epoll;
  bool ready;
  struct house house;
  struct cgroups cgroups;
  uint32_t uid_base;
  struct network network;
  char run_dir[4096], data_dir[4096];
  int pool; /* its root directory, once it was needed; else not above 0 */
  struct pool_worker pool_workers[MAX_POOL_WORKERS];
  uint32_t killing_count;
  struct cell cells[MAX_CELLS];
  struct capture_job captures[MAX_CAPTURES];
  struct writer reply;
};

/* What the event loop watches, besides inits: their tags are numbers of cells. Makers, captures and workers have theirs below one of the last three. */
enum event_tag { TAG_LINK = -1, TAG_LOG = -2, TAG_FIREWALL = -3, TAG_MAKER = 1, TAG_CAPTURE = 2, TAG_POOL = 3 };

enum outcome { DONE, LATER };

/* Does one request. DONE: answer now, from `reply` or `failure`; LATER: host_answer is called when it is finished. */
enum outcome host_operate(struct host *host, const struct frame_header *header, struct reader *reader, struct failure *failure);

/* Sends the answer to a request: the collected reply, or the failure. Does not return when squashd is gone. */
void host_answer(struct host *host, uint32_t request, uint16_t type, const struct failure *failure);

/* Fails, as the request makes no sense. */
int bad_request(struct failure *failure);

/* The init of a cell, which must be alive: a pid is only used while its pidfd says that it is still the same process. */
int living_cell(const struct host *host, uint32_t index, pid_t *pid, struct failure *failure);

/* Looks whether the firewall is still there; where it is not, closes all links and tells squashd. */
void host_firewall_changed(struct host *host);

/* Tells squashd of the packets that the firewall logged. */
void host_packets_logged(struct host *host);

/* A maker has reported, or an init has died: called by the event loop. */
void host_cell_made(struct host *host, uint32_t index);
void host_cell_died(struct host *host, uint32_t index);

/* Goes on with cells that are being removed. */
void host_continue_killing(struct host *host);

#endif
