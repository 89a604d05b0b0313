/*
 * What changes in the host's firewall while sandboxes come and go: elements of the sets in squashd's own table, and the connections that the
 * kernel tracks. The table itself is loaded by squashd, at its start.
 */
#ifndef SQ_FIREWALL_H
#define SQ_FIREWALL_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "address.h"
#include "failure.h"
#include "frame.h"

enum { FIREWALL_LOG_GROUP = 21329, MAX_ELEMENTS = 8192, MAX_KEY = 48, MAX_FLOWS = 4000 };

/* What the value of an element is: nothing, what a map holds for it, or how often a second it may be met. The wire's numbers. */
enum element_kind { ELEMENT_PLAIN, ELEMENT_MARK, ELEMENT_RATE, ELEMENT_KINDS };

/* A tracked connection as the sandbox opened it; for ICMP the ports are its identifier and its type and code. */
struct flow {
  struct address destination;
  uint16_t source_port, destination_port;
  uint8_t protocol;
  bool redirected; /* it was given another destination, squashd */
};

/* A packet that the firewall decided on and was asked to tell of. */
struct logged_packet {
  bool allowed;
  struct address source, destination;
  uint16_t destination_port;
  uint8_t protocol;
};

struct firewall {
  int netfilter; /* for requests */
  int log;       /* for packets */
  int changes;   /* for what happens to tables */
};

int firewall_open(struct firewall *firewall, struct failure *failure);

/*
 * Adds and removes elements, all or nothing, in one transaction. On the wire, after u32 count, for each: u32 removed, set, key (u32 size, then
 * bytes), u32 timeout in s (0: none), u32 kind, u32 value. Removing what is not there fails with ENOENT.
 */
int firewall_update(const struct firewall *firewall, struct reader *reader, struct failure *failure);

/* Packets and bytes that the counter of a link's element has seen; zeroes when there is no such element. */
int firewall_counter(const struct firewall *firewall, const char *set, const char link[IFNAMSIZ], uint64_t counter[2], struct failure *failure);

/* Adds the tracked connections that `source` opened to the `count` that are there, up to MAX_FLOWS. Returns how many it are then, or -1. */
int firewall_flows(const struct firewall *firewall, const struct address *source, struct flow *flows, int count, struct failure *failure);

/* Forgets a connection, whose next packet is then decided on as a first one; one that is gone is fine. */
int firewall_cut(const struct firewall *firewall, const struct address *source, const struct flow *flow, struct failure *failure);

/* Reads what was told of tables; true when squashd's is gone, and no other has taken its place. Somebody may flush all rules of the host. */
bool firewall_is_gone(const struct firewall *firewall);

/* Reads what was told of packets; calls `each` with every one. */
void firewall_read_log(const struct firewall *firewall, void (*each)(const struct logged_packet *packet, void *context), void *context);

#endif
