#include "kernel_api.h"

#include "network.h"

#include <linux/netlink.h>
#include <sched.h>

#include "guard.h"
#include "io.h"
#include "netlink.h"

int network_open(struct network *network, uint32_t subnet, const struct address *subnet6, struct failure *failure) {
  *network = (struct network){.wanted = subnet != 0,
                              .ipv6 = subnet != 0 && !address_is_none(subnet6),
                              .subnet = subnet,
                              .subnet6 = *subnet6,
                              .route = -1,
                              .namespace = -1,
                              .firewall = {-1, -1, -1}};
  if (!network->wanted) return 0;
  network->namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (network->namespace < 0) return fail(failure, "open the host's network namespace");
  network->route = nl_open(NETLINK_ROUTE, failure);
  if (network->route < 0 || firewall_open(&network->firewall, failure) < 0) return -1;
  if (guard_open(network->firewall.netfilter, failure) < 0) return -1;
  return network_gateway(network, true, failure);
}

int network_gateway(const struct network *network, bool present, struct failure *failure) {
  struct address gateway = address_of_ipv4(network->subnet + 1), gateway6 = address_behind(&network->subnet6, 1);
  if (link_gateway(network->route, &gateway, present, failure) < 0) return -1;
  return network->ipv6 ? link_gateway(network->route, &gateway6, present, failure) : 0;
}

struct link_plan network_link(const struct network *network, uint32_t index) {
  return (struct link_plan){.wanted = network->wanted,
                            .ipv6 = network->ipv6,
                            .index = index,
                            .address = link_address(network->subnet, index),
                            .gateway = network->subnet + 1,
                            .address6 = link_address6(&network->subnet6, index),
                            .gateway6 = address_behind(&network->subnet6, 1)};
}

int network_shape_inside(const struct network *network, int pid, uint64_t rate, struct failure *failure) {
  char path[64];
  (void)format(path, sizeof(path), "/proc/%d/ns/net", pid);
  AUTO_CLOSE int theirs = open(path, O_RDONLY | O_CLOEXEC);
  if (theirs < 0 || setns(theirs, CLONE_NEWNET) < 0) return fail(failure, "enter %s", path);
  AUTO_CLOSE int cell = nl_open(NETLINK_ROUTE, failure);
  int result = cell < 0 ? -1 : link_shape(cell, link_inside, rate, failure);
  if (setns(network->namespace, CLONE_NEWNET) < 0) _exit(70); /* the next link would be made in the wrong place */
  return result;
}
