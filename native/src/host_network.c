#include "kernel_api.h"

#include "host_network.h"

#include <errno.h>
#include <sys/epoll.h>

#include "io.h"

static struct flow flows[MAX_FLOWS];

static int require_network(const struct host *host, struct failure *failure) {
  errno = ENETDOWN;
  return host->network.wanted ? 0 : fail(failure, "use the network, which is switched off");
}

/* Reads the number of a cell, which must be there with nothing behind when `alone`. */
static int read_index(struct reader *reader, bool alone, uint32_t *index, struct failure *failure) {
  *index = read_u32(reader);
  if (reader->failed || (alone && !reader_finished(reader)) || *index >= MAX_CELLS) return bad_request(failure);
  return 0;
}

int host_watch_firewall(const struct host *host, struct failure *failure) {
  struct epoll_event log = {.events = EPOLLIN, .data.u64 = (uint64_t)TAG_LOG};
  struct epoll_event changes = {.events = EPOLLIN, .data.u64 = (uint64_t)TAG_FIREWALL};
  if (!host->network.wanted) return 0;
  if (epoll_ctl(host->epoll, EPOLL_CTL_ADD, host->network.firewall.log, &log) < 0 ||
      epoll_ctl(host->epoll, EPOLL_CTL_ADD, host->network.firewall.changes, &changes) < 0)
    return fail(failure, "watch the firewall");
  return 0;
}

/* Goes on after a failure, and returns the first: a link that cannot be found belongs to a cell that has just died. */
static int set_links(const struct host *host, bool up, struct failure *failure) {
  for (uint32_t index = 0; index < MAX_CELLS; index++) {
    if (host->cells[index].pid == 0) continue;
    struct link_plan plan = network_link(&host->network, index);
    struct failure problem = {0};
    if (link_set(&plan, host->network.route, up, &problem) < 0 && problem.code != ENODEV && failure->code == 0) *failure = problem;
  }
  return failure->code == 0 ? 0 : -1;
}

void host_firewall_changed(struct host *host) {
  struct failure ignored = {0};
  if (!firewall_is_gone(&host->network.firewall)) return;
  (void)set_links(host, false, &ignored);
  writer_reset(&host->reply);
  host_answer(host, 0, EVENT_FIREWALL_GONE, &(struct failure){0});
}

int op_net_gate(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t open = read_u32(reader);
  if (!reader_finished(reader)) return bad_request(failure);
  if (require_network(host, failure) < 0) return -1;
  return set_links(host, open != 0, failure);
}

/* The cell that has the address. */
static bool find_sender(const struct network *network, const struct address *source, uint32_t *index) {
  struct address first = link_address6(&network->subnet6, 0);
  if (address_is_ipv4(source)) first = address_of_ipv4(link_address(network->subnet, 0));
  *index = address_low(source) - address_low(&first);
  struct address found = address_behind(&first, *index);
  return *index < MAX_CELLS && address_equal(&found, source);
}

static void tell_of_packet(const struct logged_packet *packet, void *context) {
  struct host *host = context;
  uint32_t index;
  if (!find_sender(&host->network, &packet->source, &index)) return;
  writer_reset(&host->reply);
  write_u32(&host->reply, index);
  write_u32(&host->reply, packet->allowed ? 1 : 0);
  write_address(&host->reply, &packet->destination);
  write_u32(&host->reply, packet->destination_port);
  write_u32(&host->reply, packet->protocol);
  host_answer(host, 0, EVENT_PACKET, &(struct failure){0});
}

void host_packets_logged(struct host *host) { firewall_read_log(&host->network.firewall, tell_of_packet, host); }

int op_net_update(struct host *host, struct reader *reader, struct failure *failure) {
  if (require_network(host, failure) < 0) return -1;
  return firewall_update(&host->network.firewall, reader, failure);
}

int op_net_stats(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index;
  struct link_traffic traffic = {0};
  uint64_t refused[2];
  if (read_index(reader, true, &index, failure) < 0 || require_network(host, failure) < 0) return -1;
  if (link_traffic(host->network.route, index, &traffic, failure) < 0) return -1;
  char name[IFNAMSIZ];
  link_name(index, name);
  if (firewall_counter(&host->network.firewall, "refused", name, refused, failure) < 0) return -1;
  write_u64(&host->reply, traffic.received_bytes);
  write_u64(&host->reply, traffic.received_packets);
  write_u64(&host->reply, traffic.sent_bytes);
  write_u64(&host->reply, traffic.sent_packets);
  write_u64(&host->reply, refused[0]);
  return 0;
}

/*
 * Whether no packet has ever come from a cell, so that nothing can be tracked that it began: only its own link may carry its address.
 * The kernel finds connections by walking through a table for the whole machine. Where the link cannot be asked the walk decides, as for a
 * cell whose init has died.
 */
static bool has_been_silent(const struct host *host, uint32_t index) {
  struct link_traffic traffic;
  struct failure ignored = {0};
  return link_traffic(host->network.route, index, &traffic, &ignored) == 0 && traffic.received_packets == 0;
}

static struct address source_of(const struct network *network, uint32_t index, bool ipv6) {
  return ipv6 ? link_address6(&network->subnet6, index) : address_of_ipv4(link_address(network->subnet, index));
}

int op_net_flows(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index;
  if (read_index(reader, true, &index, failure) < 0 || require_network(host, failure) < 0) return -1;
  if (has_been_silent(host, index)) {
    write_u32(&host->reply, 0);
    return 0;
  }
  int count = 0;
  for (int family = 0; family < (host->network.ipv6 ? 2 : 1); family++) {
    struct address source = source_of(&host->network, index, family == 1);
    count = firewall_flows(&host->network.firewall, &source, flows, count, failure);
    if (count < 0) return -1;
  }
  write_u32(&host->reply, (uint32_t)count);
  for (int i = 0; i < count; i++) {
    write_address(&host->reply, &flows[i].destination);
    write_u32(&host->reply, (uint32_t)flows[i].source_port << 16 | flows[i].destination_port);
    write_u32(&host->reply, flows[i].protocol | (flows[i].redirected ? 256U : 0));
  }
  return 0;
}

int op_net_cut(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index;
  if (read_index(reader, false, &index, failure) < 0 || require_network(host, failure) < 0) return -1;
  uint32_t count = read_u32(reader);
  if (reader->failed || count > MAX_FLOWS) return bad_request(failure);
  for (uint32_t i = 0; i < count; i++) {
    flows[i].destination = read_address(reader);
    uint32_t ports = read_u32(reader);
    flows[i].source_port = (uint16_t)(ports >> 16);
    flows[i].destination_port = (uint16_t)ports;
    flows[i].protocol = (uint8_t)read_u32(reader);
  }
  if (!reader_finished(reader)) return bad_request(failure);
  for (uint32_t i = 0; i < count; i++) {
    struct address source = source_of(&host->network, index, !address_is_ipv4(&flows[i].destination));
    if (firewall_cut(&host->network.firewall, &source, &flows[i], failure) < 0) return -1;
  }
  return 0;
}

int op_net_shape(struct host *host, struct reader *reader, struct failure *failure) {
  char name[IFNAMSIZ];
  uint32_t index;
  if (read_index(reader, false, &index, failure) < 0 || require_network(host, failure) < 0) return -1;
  uint64_t to_cell = read_u64(reader), from_cell = read_u64(reader);
  if (!reader_finished(reader)) return bad_request(failure);
  pid_t pid;
  if (living_cell(host, index, &pid, failure) < 0) return -1;
  link_name(index, name);
  if (link_shape(host->network.route, name, to_cell, failure) < 0) return -1;
  return network_shape_inside(&host->network, pid, from_cell, failure);
}

int op_net_close(struct host *host, struct reader *reader, struct failure *failure) {
  if (!reader_finished(reader)) return bad_request(failure);
  if (require_network(host, failure) < 0) return -1;
  return network_gateway(&host->network, false, failure);
}
