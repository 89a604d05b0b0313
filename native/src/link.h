/* The network link of a cell: a veth pair, one end in the cell's network namespace, the other on the host. */
#ifndef SQ_LINK_H
#define SQ_LINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "failure.h"

/* Group of all links' ends on the host, by which the firewall knows them; daemon/src/kernel/network has the same number. */
enum { LINK_GROUP = 21329 };

/* Where a cell's link leads; addresses that are numbers are IPv4 in the host's byte order. */
struct link_plan {
  bool wanted, ipv6; /* without a network a cell has a loopback interface only; its link has IPv6 only where that is wanted */
  uint32_t index;
  uint32_t address, gateway;
  struct address address6, gateway6;
};

/* Address of the link of cell `index`, in the sandboxes' subnet whose first address is `subnet`: behind the gateway's. */
static inline uint32_t link_address(uint32_t subnet, uint32_t index) { return subnet + 2 + index; }
static inline struct address link_address6(const struct address *subnet, uint32_t index) { return address_behind(subnet, 2 + index); }

/* Name of the end in the cell. */
extern const char link_inside[];

/* Name of the host's end. */
void link_name(uint32_t index, char name[IFNAMSIZ]);

/*
 * Makes the pair and sets both ends up, with fixed neighbours, so that no address is ever asked for. Called in the cell's network namespace
 * by the host's root; `host` is a netlink socket of the host's network namespace, `host_netns` that namespace.
 */
int link_make(const struct link_plan *plan, int host, int host_netns, struct failure *failure);

/* What only a process in the host's network namespace can do for the host's end: forwarding, and IPv6 or none; `host` as for link_make. */
int link_open(const struct link_plan *plan, int host, struct failure *failure);

/*
 * Sets the host's end up, with its neighbours and routes, or down, so that nothing passes; `host` as for link_make. A link that was made
 * without IPv6 stays without it.
 */
int link_set(const struct link_plan *plan, int host, bool up, struct failure *failure);

/* Adds the gateway's address to the host's loopback interface, or removes it; idempotent. */
int link_gateway(int host, const struct address *gateway, bool present, struct failure *failure);

/* Bytes and packets that a link's host end has received (from the cell) and sent. */
struct link_traffic {
  uint64_t received_bytes, received_packets, sent_bytes, sent_packets;
};

int link_traffic(int host, uint32_t index, struct link_traffic *traffic, struct failure *failure);

/* Limits what an interface sends to `rate` bytes a second; 0 takes the limit away. `netlink` is of the interface's network namespace. */
int link_shape(int netlink, const char *name, uint64_t rate, struct failure *failure);

#endif
