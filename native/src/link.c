#include "kernel_api.h"

#include "link.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "io.h"
#include "netlink.h"

enum { CAPACITY = 4096, NAME_TRIES = 400, NAME_WAIT_NS = 5000000, HARDWARE_ADDRESS = 6, LEAST_BURST = 131072 };

const char link_inside[] = "eth0";

void link_name(uint32_t index, char name[IFNAMSIZ]) { (void)format(name, IFNAMSIZ, "sq%uh", index); }

/* Locally administered; the third byte from the left tells the ends apart. */
static void hardware_address(uint32_t index, bool host, uint8_t address[HARDWARE_ADDRESS]) {
  const uint8_t bytes[HARDWARE_ADDRESS] = {0x02, 0x53, host ? 0x01 : 0x02, (uint8_t)(index >> 16), (uint8_t)(index >> 8), (uint8_t)index};
  memcpy(address, bytes, sizeof(bytes));
}

static int interface_index(int netlink, const char *name, struct failure *failure) {
  struct ifreq request = {0};
  (void)format(request.ifr_name, sizeof(request.ifr_name), "%s", name);
  if (ioctl(netlink, SIOCGIFINDEX, &request) < 0) return fail(failure, "find interface %s", name);
  return request.ifr_ifindex;
}

static int create_pair(const struct link_plan *plan, int cell, int host_netns) {
  uint8_t bytes[CAPACITY], address[HARDWARE_ADDRESS];
  char name[IFNAMSIZ];
  struct nl_batch batch;
  const struct ifinfomsg none = {.ifi_family = AF_UNSPEC};
  link_name(plan->index, name);
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &none, sizeof(none));
  hardware_address(plan->index, false, address);
  nl_put_text(&batch, IFLA_IFNAME, link_inside);
  nl_put(&batch, IFLA_ADDRESS, address, sizeof(address));
  size_t info = nl_nest(&batch, IFLA_LINKINFO);
  nl_put_text(&batch, IFLA_INFO_KIND, "veth");
  size_t data = nl_nest(&batch, IFLA_INFO_DATA);
  size_t peer = nl_nest(&batch, VETH_INFO_PEER);
  size_t header = batch.size;
  batch.size += NLMSG_ALIGN(sizeof(none)); /* the peer's own header, without an attribute's */
  if (batch.size > batch.capacity) batch.failed = true;
  else memcpy(bytes + header, &none, sizeof(none));
  hardware_address(plan->index, true, address);
  nl_put_text(&batch, IFLA_IFNAME, name);
  nl_put(&batch, IFLA_ADDRESS, address, sizeof(address));
  nl_put_u32(&batch, IFLA_GROUP, LINK_GROUP);
  nl_put_u32(&batch, IFLA_NET_NS_FD, (uint32_t)host_netns);
  nl_end(&batch, peer);
  nl_end(&batch, data);
  nl_end(&batch, info);
  return nl_transact(cell, &batch, 0);
}

struct link_facts {
  const char *name;
  bool is_ours;
};

static void take_facts(const uint8_t *payload, size_t size, void *context) {
  struct link_facts *facts = context;
  size_t length = 0, header = NLMSG_ALIGN(sizeof(struct ifinfomsg));
  uint32_t group = 0;
  if (size < header) return;
  const uint8_t *name = nl_find(payload + header, size - header, IFLA_IFNAME, &length);
  if (name == NULL || length != strlen(facts->name) + 1 || memcmp(name, facts->name, length) != 0) return; /* it is another's second name */
  const uint8_t *found = nl_find(payload + header, size - header, IFLA_GROUP, &length);
  if (found != NULL && length == sizeof(group)) memcpy(&group, found, sizeof(group));
  facts->is_ours = group == LINK_GROUP;
}

/* Asks for a link by its name, of which there is one; the answer goes to `each`. */
static int ask_for_link(int host, const char *name, void (*each)(const uint8_t *payload, size_t size, void *context), void *context) {
  uint8_t bytes[256];
  struct nl_batch batch;
  const struct ifinfomsg none = {.ifi_family = AF_UNSPEC};
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, RTM_GETLINK, NLM_F_ACK, &none, sizeof(none));
  nl_put_text(&batch, IFLA_IFNAME, name);
  return nl_query(host, &batch, each, context);
}

/* Removes a link of ours; one that only has the name is left alone. */
static int remove_link(int host, const char *name) {
  struct link_facts facts = {.name = name};
  if (ask_for_link(host, name, take_facts, &facts) < 0 || !facts.is_ours) return -1;
  uint8_t bytes[256];
  struct nl_batch batch;
  const struct ifinfomsg none = {.ifi_family = AF_UNSPEC};
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, RTM_DELLINK, NLM_F_ACK, &none, sizeof(none));
  nl_put_text(&batch, IFLA_IFNAME, name);
  return nl_transact(host, &batch, ENODEV);
}

/* A link goes a moment after its cell does; one of the same number may still be there, and is in nobody's use. */
static int create_named(const struct link_plan *plan, int cell, int host, int host_netns, struct failure *failure) {
  char name[IFNAMSIZ];
  link_name(plan->index, name);
  for (int attempt = 0; create_pair(plan, cell, host_netns) < 0; attempt++) {
    if (errno != EEXIST || attempt == NAME_TRIES) return fail(failure, "make link %s", name);
    if (attempt == 0) (void)remove_link(host, name);
    (void)nanosleep(&(struct timespec){.tv_nsec = NAME_WAIT_NS}, NULL);
  }
  return 0;
}

static void put_flags(struct nl_batch *batch, int interface, unsigned flags) {
  const struct ifinfomsg info = {
      .ifi_family = AF_UNSPEC, .ifi_index = interface, .ifi_flags = flags, .ifi_change = IFF_UP | IFF_NOARP};
  (void)nl_message(batch, RTM_NEWLINK, NLM_F_ACK, &info, sizeof(info));
}

/* The family of an address, and where its bytes begin and how many they are. */
struct parts {
  uint8_t family, prefix;
  const uint8_t *bytes;
  size_t size;
};

static struct parts parts_of(const struct address *address) {
  if (address_is_ipv4(address)) return (struct parts){AF_INET, 32, address->bytes + 12, 4};
  return (struct parts){AF_INET6, 128, address->bytes, ADDRESS_SIZE};
}

static void put_neighbour(struct nl_batch *batch, int interface, const struct address *address, const uint8_t hardware[HARDWARE_ADDRESS]) {
  struct parts parts = parts_of(address);
  const struct ndmsg info = {.ndm_family = parts.family, .ndm_ifindex = interface, .ndm_state = NUD_PERMANENT};
  (void)nl_message(batch, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof(info));
  nl_put(batch, NDA_DST, parts.bytes, parts.size);
  nl_put(batch, NDA_LLADDR, hardware, HARDWARE_ADDRESS);
}

/* A route over an interface: to one address, or to everything through a gateway, which need not be on any network. */
static void put_route(struct nl_batch *batch, int interface, const struct address *address, bool is_gateway) {
  struct parts parts = parts_of(address);
  const struct rtmsg info = {.rtm_family = parts.family,
                             .rtm_dst_len = is_gateway ? 0 : parts.prefix,
                             .rtm_table = RT_TABLE_MAIN,
                             .rtm_protocol = RTPROT_STATIC,
                             .rtm_scope = is_gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                             .rtm_type = RTN_UNICAST,
                             .rtm_flags = is_gateway ? RTNH_F_ONLINK : 0};
  (void)nl_message(batch, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof(info));
  nl_put(batch, is_gateway ? RTA_GATEWAY : RTA_DST, parts.bytes, parts.size);
  nl_put_u32(batch, RTA_OIF, (uint32_t)interface);
}

/* Nobody else can have it, so that IPv6 need not ask. */
static void put_interface_address(struct nl_batch *batch, int interface, uint16_t type, uint16_t flags, const struct address *address) {
  struct parts parts = parts_of(address);
  const struct ifaddrmsg info = {.ifa_family = parts.family,
                                 .ifa_prefixlen = parts.prefix,
                                 .ifa_flags = parts.family == AF_INET6 ? IFA_F_NODAD : 0,
                                 .ifa_index = (unsigned)interface};
  (void)nl_message(batch, type, NLM_F_ACK | flags, &info, sizeof(info));
  nl_put(batch, IFA_LOCAL, parts.bytes, parts.size);
  nl_put(batch, IFA_ADDRESS, parts.bytes, parts.size);
}

static int set_up_inside(const struct link_plan *plan, int cell, struct failure *failure) {
  uint8_t bytes[CAPACITY], hardware[HARDWARE_ADDRESS];
  struct nl_batch batch;
  struct address address = address_of_ipv4(plan->address), gateway = address_of_ipv4(plan->gateway);
  int interface = interface_index(cell, link_inside, failure);
  if (interface < 0) return -1;
  hardware_address(plan->index, true, hardware);
  nl_start(&batch, bytes, sizeof(bytes));
  put_interface_address(&batch, interface, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &address);
  put_flags(&batch, interface, IFF_UP | IFF_NOARP);
  put_neighbour(&batch, interface, &gateway, hardware);
  put_route(&batch, interface, &gateway, true);
  if (plan->ipv6) {
    put_interface_address(&batch, interface, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &plan->address6);
    put_neighbour(&batch, interface, &plan->gateway6, hardware);
    put_route(&batch, interface, &plan->gateway6, true);
  }
  if (nl_transact(cell, &batch, 0) < 0) return fail(failure, "set up the cell's end of its link");
  return 0;
}

/* The neighbour and the route on the host. */
static int lead_to(const struct link_plan *plan, int host, int interface, const struct address *address, int tolerated) {
  uint8_t bytes[CAPACITY], cell[HARDWARE_ADDRESS];
  struct nl_batch batch;
  hardware_address(plan->index, false, cell);
  nl_start(&batch, bytes, sizeof(bytes));
  put_neighbour(&batch, interface, address, cell);
  put_route(&batch, interface, address, false);
  return nl_transact(host, &batch, tolerated);
}

int link_set(const struct link_plan *plan, int host, bool up, struct failure *failure) {
  uint8_t bytes[CAPACITY];
  char name[IFNAMSIZ];
  struct nl_batch batch;
  struct address address = address_of_ipv4(plan->address);
  link_name(plan->index, name);
  int interface = interface_index(host, name, failure);
  if (interface < 0) return -1;
  nl_start(&batch, bytes, sizeof(bytes));
  put_flags(&batch, interface, up ? IFF_UP | IFF_NOARP : IFF_NOARP);
  if (nl_transact(host, &batch, 0) < 0) return fail(failure, "set link %s %s", name, up ? "up" : "down");
  if (up && lead_to(plan, host, interface, &address, 0) < 0) return fail(failure, "lead to link %s", name);
  /* EACCES: the interface has no IPv6 */
  if (up && plan->ipv6 && lead_to(plan, host, interface, &plan->address6, EACCES) < 0) return fail(failure, "lead to link %s by IPv6", name);
  return 0;
}

/* A setting of the network namespace that the caller is in. A kernel without IPv6 lacks its settings. */
static int set_sysctl(const char *path, const char *value, struct failure *failure) {
  if (write_file_at(AT_FDCWD, path, value) == 0) return 0;
  if (errno == ENOENT && strncmp(path, "/proc/sys/net/ipv6/", 19) == 0) return 0;
  return fail(failure, "write %s to %s", value, path);
}

struct setting {
  const char *pattern, *value; /* %s: the interface */
};

static int set_sysctls(const struct setting *settings, size_t count, const char *name, struct failure *failure) {
  char path[128];
  for (size_t i = 0; i < count; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    (void)format(path, sizeof(path), settings[i].pattern, name);
#pragma GCC diagnostic pop
    if (set_sysctl(path, settings[i].value, failure) < 0) return -1;
  }
  return 0;
}

/* IPv6 with nothing that an interface does by itself: no address of its own making, nothing learned from whoever is on the other end. */
static const struct setting quiet_ipv6[] = {
    {"/proc/sys/net/ipv6/conf/%s/addr_gen_mode", "1"},    {"/proc/sys/net/ipv6/conf/%s/accept_ra", "0"},
    {"/proc/sys/net/ipv6/conf/%s/autoconf", "0"},         {"/proc/sys/net/ipv6/conf/%s/router_solicitations", "0"},
    {"/proc/sys/net/ipv6/conf/%s/accept_redirects", "0"}, {"/proc/sys/net/ipv6/conf/%s/dad_transmits", "0"},
};
static const struct setting no_ipv6[] = {{"/proc/sys/net/ipv6/conf/%s/disable_ipv6", "1"}};
static const struct setting some_ipv6[] = {{"/proc/sys/net/ipv6/conf/%s/disable_ipv6", "0"}};

/* Before there is an interface: none will have IPv6 but loopback, or one that keeps quiet. */
static int set_defaults(bool ipv6, struct failure *failure) {
  if (!ipv6) return set_sysctls(no_ipv6, ARRAY_LEN(no_ipv6), "default", failure);
  if (set_sysctls(quiet_ipv6, ARRAY_LEN(quiet_ipv6), "default", failure) < 0) return -1;
  return set_sysctls(some_ipv6, ARRAY_LEN(some_ipv6), "default", failure);
}

int link_make(const struct link_plan *plan, int host, int host_netns, struct failure *failure) {
  AUTO_CLOSE int cell = nl_open(NETLINK_ROUTE, failure);
  if (cell < 0) return -1;
  if (set_defaults(plan->ipv6, failure) < 0) return -1;
  if (create_named(plan, cell, host, host_netns, failure) < 0) return -1;
  if (set_up_inside(plan, cell, failure) < 0) return -1;
  /* what the host's end has of IPv6 is link_open's to say */
  struct link_plan without = *plan;
  without.ipv6 = false;
  return link_set(&without, host, true, failure);
}

int link_open(const struct link_plan *plan, int host, struct failure *failure) {
  static const struct setting settings[] = {
      {"/proc/sys/net/ipv4/conf/%s/send_redirects", "0"},
      {"/proc/sys/net/ipv4/conf/%s/accept_redirects", "0"},
      {"/proc/sys/net/ipv4/conf/%s/rp_filter", "1"},
      {"/proc/sys/net/ipv4/conf/%s/forwarding", "1"},
  };
  static const struct setting router[] = {{"/proc/sys/net/ipv6/conf/%s/forwarding", "1"}};
  char name[IFNAMSIZ];
  link_name(plan->index, name);
  /* for IPv6, too, it goes first: what the interface has made of it until now goes with it */
  if (set_sysctls(no_ipv6, ARRAY_LEN(no_ipv6), name, failure) < 0) return -1;
  if (set_sysctls(settings, ARRAY_LEN(settings), name, failure) < 0) return -1;
  if (!plan->ipv6) return 0;
  if (set_sysctls(quiet_ipv6, ARRAY_LEN(quiet_ipv6), name, failure) < 0) return -1;
  if (set_sysctls(router, ARRAY_LEN(router), name, failure) < 0) return -1;
  if (set_sysctls(some_ipv6, ARRAY_LEN(some_ipv6), name, failure) < 0) return -1;
  int interface = interface_index(host, name, failure);
  if (interface < 0) return -1;
  return lead_to(plan, host, interface, &plan->address6, 0) < 0 ? fail(failure, "lead to link %s by IPv6", name) : 0;
}

int link_gateway(int host, const struct address *gateway, bool present, struct failure *failure) {
  uint8_t bytes[256];
  struct nl_batch batch;
  int interface = interface_index(host, "lo", failure);
  if (interface < 0) return -1;
  nl_start(&batch, bytes, sizeof(bytes));
  put_interface_address(&batch, interface, present ? RTM_NEWADDR : RTM_DELADDR, present ? NLM_F_CREATE | NLM_F_EXCL : 0, gateway);
  if (nl_transact(host, &batch, present ? EEXIST : EADDRNOTAVAIL) < 0)
    return fail(failure, "%s the gateway's %s address", present ? "add" : "remove", address_is_ipv4(gateway) ? "IPv4" : "IPv6");
  return 0;
}

static void take_traffic(const uint8_t *payload, size_t size, void *context) {
  struct link_traffic *traffic = context;
  struct rtnl_link_stats64 stats;
  size_t length = 0;
  if (size < NLMSG_ALIGN(sizeof(struct ifinfomsg))) return;
  const uint8_t *found =
      nl_find(payload + NLMSG_ALIGN(sizeof(struct ifinfomsg)), size - NLMSG_ALIGN(sizeof(struct ifinfomsg)), IFLA_STATS64, &length);
  if (found == NULL) return;
  memset(&stats, 0, sizeof(stats));
  memcpy(&stats, found, length < sizeof(stats) ? length : sizeof(stats));
  *traffic = (struct link_traffic){stats.rx_bytes, stats.rx_packets, stats.tx_bytes, stats.tx_packets};
}

int link_traffic(int host, uint32_t index, struct link_traffic *traffic, struct failure *failure) {
  char name[IFNAMSIZ];
  link_name(index, name);
  if (ask_for_link(host, name, take_traffic, traffic) < 0) return fail(failure, "read the traffic of link %s", name);
  return 0;
}

/* A token bucket of a fiftieth of a second, with room for a packet before its segmentation, and a queue of a tenth. Source: tc-tbf(8) */
static void put_bucket(struct nl_batch *batch, uint64_t rate) {
  uint64_t burst = rate / 50 < LEAST_BURST ? LEAST_BURST : rate / 50, limit = burst + rate / 10;
  struct tc_tbf_qopt options = {.limit = (uint32_t)(limit > UINT32_MAX ? UINT32_MAX : limit)};
  options.rate.rate = (uint32_t)(rate > UINT32_MAX ? UINT32_MAX : rate);
  options.rate.linklayer = TC_LINKLAYER_ETHERNET;
  size_t nest = nl_nest(batch, TCA_OPTIONS);
  nl_put(batch, TCA_TBF_PARMS, &options, sizeof(options));
  nl_put_u32(batch, TCA_TBF_BURST, (uint32_t)burst);
  if (rate > UINT32_MAX) nl_put(batch, TCA_TBF_RATE64, &rate, sizeof(rate));
  nl_end(batch, nest);
}

int link_shape(int netlink, const char *name, uint64_t rate, struct failure *failure) {
  uint8_t bytes[512];
  struct nl_batch batch;
  int interface = interface_index(netlink, name, failure);
  if (interface < 0) return -1;
  struct tcmsg info = {.tcm_family = AF_UNSPEC, .tcm_ifindex = interface, .tcm_parent = TC_H_ROOT};
  nl_start(&batch, bytes, sizeof(bytes));
  if (rate == 0) {
    (void)nl_message(&batch, RTM_DELQDISC, NLM_F_ACK, &info, sizeof(info));
  } else {
    (void)nl_message(&batch, RTM_NEWQDISC, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof(info));
    nl_put_text(&batch, TCA_KIND, "tbf");
    put_bucket(&batch, rate);
  }
  int result = nl_transact(netlink, &batch, rate == 0 ? ENOENT : 0);
  if (result < 0 && rate == 0 && errno == EINVAL) return 0; /* the other way in which a kernel says that there is none */
  return result < 0 ? fail(failure, "limit the bandwidth of link %s", name) : 0;
}
