/* The sandboxes' network as sq-host knows it: their subnet, sockets to the kernel, and the cells' links. */
#ifndef SQ_NETWORK_H
#define SQ_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "firewall.h"
#include "link.h"

struct network {
  bool wanted;
  bool ipv6;
  uint32_t subnet;        /* its first address, in the host's byte order; the gateway's is the one behind */
  struct address subnet6; /* the same of IPv6 */
  int route;       /* rtnetlink, in the host's network namespace */
  int namespace;   /* the host's network namespace */
  struct firewall firewall;
};

/* With `subnet` 0 there is no network, and every operation on it fails; without `subnet6` there is no IPv6. */
int network_open(struct network *network, uint32_t subnet, const struct address *subnet6, struct failure *failure);

/* Adds the gateway's addresses to the host, or removes them; idempotent. */
int network_gateway(const struct network *network, bool present, struct failure *failure);

struct link_plan network_link(const struct network *network, uint32_t index);

/* Runs in another process's network namespace: limits what it sends to `rate` bytes a second. */
int network_shape_inside(const struct network *network, int pid, uint64_t rate, struct failure *failure);

#endif
