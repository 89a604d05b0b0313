/*
 * The second table of the firewall, `inet squash_guard`, which only holds where the first one is not. It belongs to the socket that made it: nobody
 * else can change it, `nft flush ruleset` passes it over, and it goes with the socket. What sandboxes send must carry the stamp of the first table
 * when it comes by, and what is sent to them must be of a connection that they began; so the removal of the first table opens nothing, not even
 * for the moment until it is noticed.
 */
#ifndef SQ_GUARD_H
#define SQ_GUARD_H

#include "failure.h"

/* The mark that the first table gives packets just before the guard and takes away behind it; daemon/src/kernel/network/ruleset.ts has the same number. */
enum { GUARD_STAMP = 0x73717368 };

/* Makes the table through a socket of NETLINK_NETFILTER, for as long as that is open. Waits a moment for an earlier owner to go. */
int guard_open(int netfilter, struct failure *failure);

#endif
