#include "kernel_api.h"

#include "firewall.h"

#include <endian.h>
#include <errno.h>
#include <linux/in.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <string.h>
#include <sys/socket.h>

#include "io.h"
#include "netlink.h"
#include "nftables.h"

enum { BATCH = 2 * 1024 * 1024, SMALL = 1024, COPIED = 64, SET_NAME = 31 };

static const char table[] = "squash";

/* Has the kernel send the first bytes of every packet that the firewall logs to our group. */
static int bind_log(int fd, struct failure *failure) {
  uint8_t bytes[SMALL];
  struct nl_batch batch;
  const struct nfgenmsg header = {.nfgen_family = NFPROTO_UNSPEC, .res_id = htobe16(FIREWALL_LOG_GROUP)};
  const struct nfulnl_msg_config_cmd bind = {.command = NFULNL_CFG_CMD_BIND};
  const struct nfulnl_msg_config_mode mode = {.copy_range = htobe32(COPIED), .copy_mode = NFULNL_COPY_PACKET};
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, nf_type(NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG), NLM_F_ACK, &header, sizeof(header));
  nl_put(&batch, NFULA_CFG_CMD, &bind, sizeof(bind));
  nl_put(&batch, NFULA_CFG_MODE, &mode, sizeof(mode));
  /* hundredths of a second until what was logged is told, however little it is */
  nl_put_be32(&batch, NFULA_CFG_TIMEOUT, 10);
  if (nl_transact(fd, &batch, 0) < 0) return fail(failure, "listen to the firewall's log");
  return 0;
}

int firewall_open(struct firewall *firewall, struct failure *failure) {
  firewall->netfilter = nl_open(NETLINK_NETFILTER, failure);
  firewall->log = nl_open(NETLINK_NETFILTER, failure);
  firewall->changes = nl_open(NETLINK_NETFILTER, failure);
  if (firewall->netfilter < 0 || firewall->log < 0 || firewall->changes < 0) return -1;
  int group = NFNLGRP_NFTABLES;
  if (setsockopt(firewall->changes, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
    return fail(failure, "listen to changes of the firewall");
  return bind_log(firewall->log, failure);
}

static void put_rate(struct nl_batch *batch, uint32_t rate) {
  size_t expression = nl_nest(batch, NFTA_SET_ELEM_EXPR);
  nl_put_text(batch, NFTA_EXPR_NAME, "limit");
  size_t data = nl_nest(batch, NFTA_EXPR_DATA);
  nl_put_be64(batch, NFTA_LIMIT_RATE, rate);
  nl_put_be64(batch, NFTA_LIMIT_UNIT, 1);
  nl_put_be32(batch, NFTA_LIMIT_BURST, rate);
  nl_put_be32(batch, NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
  nl_put_be32(batch, NFTA_LIMIT_FLAGS, NFT_LIMIT_F_INV); /* the element is met only beyond the rate */
  nl_end(batch, data);
  nl_end(batch, expression);
}

struct element {
  bool removed;
  const char *set;
  const uint8_t *key;
  uint32_t key_size, timeout_s, kind, value;
};

static bool read_element(struct reader *reader, struct element *element) {
  element->removed = read_u32(reader) != 0;
  element->set = read_string(reader, SET_NAME);
  element->key_size = read_u32(reader);
  if (reader->failed || element->key_size == 0 || element->key_size > MAX_KEY) return false;
  element->key = read_bytes(reader, element->key_size);
  element->timeout_s = read_u32(reader);
  element->kind = read_u32(reader);
  element->value = read_u32(reader);
  return !reader->failed && element->kind < ELEMENT_KINDS;
}

static void put_element(struct nl_batch *batch, const struct element *element, bool is_last) {
  uint16_t flags = (uint16_t)((is_last ? NLM_F_ACK : 0) | (element->removed ? 0 : NLM_F_CREATE));
  nft_message(batch, element->removed ? NFT_MSG_DELSETELEM : NFT_MSG_NEWSETELEM, flags);
  nl_put_text(batch, NFTA_SET_ELEM_LIST_TABLE, table);
  nl_put_text(batch, NFTA_SET_ELEM_LIST_SET, element->set);
  size_t list = nl_nest(batch, NFTA_SET_ELEM_LIST_ELEMENTS), one = nl_nest(batch, NFTA_LIST_ELEM);
  nft_value(batch, NFTA_SET_ELEM_KEY, element->key, element->key_size);
  if (!element->removed) {
    if (element->kind == ELEMENT_MARK) nft_value(batch, NFTA_SET_ELEM_DATA, &element->value, sizeof(element->value));
    if (element->kind == ELEMENT_RATE) put_rate(batch, element->value);
    if (element->timeout_s != 0) nl_put_be64(batch, NFTA_SET_ELEM_TIMEOUT, (uint64_t)element->timeout_s * 1000);
  }
  nl_end(batch, one);
  nl_end(batch, list);
}

int firewall_update(const struct firewall *firewall, struct reader *reader, struct failure *failure) {
  static uint8_t bytes[BATCH];
  struct nl_batch batch;
  struct element element;
  uint32_t count = read_u32(reader);
  errno = EBADMSG;
  if (reader->failed || count > MAX_ELEMENTS) return fail(failure, "understand the elements");
  nl_start(&batch, bytes, sizeof(bytes));
  nft_begin(&batch);
  for (uint32_t i = 0; i < count; i++) {
    errno = EBADMSG;
    if (!read_element(reader, &element)) return fail(failure, "understand element %u", i);
    put_element(&batch, &element, i + 1 == count);
  }
  errno = EBADMSG;
  if (!reader_finished(reader)) return fail(failure, "understand the elements");
  nft_end(&batch);
  if (count > 0 && nl_transact(firewall->netfilter, &batch, 0) < 0) return fail(failure, "change the firewall's sets");
  return 0;
}

/* The counter in the first element of an answer: table, set, elements → element → expression → counter. */
static void take_counter(const uint8_t *payload, size_t size, void *context) {
  static const uint16_t path[] = {NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_LIST_ELEM, NFTA_SET_ELEM_EXPR, NFTA_EXPR_DATA};
  uint64_t *counter = context, value;
  if (size < sizeof(struct nfgenmsg)) return;
  payload += sizeof(struct nfgenmsg);
  size -= sizeof(struct nfgenmsg);
  for (size_t i = 0; i < ARRAY_LEN(path) && payload != NULL; i++) payload = nl_find(payload, size, path[i], &size);
  if (payload == NULL) return;
  static const uint16_t fields[] = {NFTA_COUNTER_PACKETS, NFTA_COUNTER_BYTES};
  for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
    size_t length = 0;
    const uint8_t *found = nl_find(payload, size, fields[i], &length);
    if (found == NULL || length != sizeof(value)) continue;
    memcpy(&value, found, sizeof(value));
    counter[i] = be64toh(value);
  }
}

int firewall_counter(const struct firewall *firewall, const char *set, const char link[IFNAMSIZ], uint64_t counter[2], struct failure *failure) {
  uint8_t bytes[SMALL];
  struct nl_batch batch;
  char key[IFNAMSIZ] = {0};
  memcpy(key, link, strnlen(link, sizeof(key)));
  counter[0] = counter[1] = 0;
  nl_start(&batch, bytes, sizeof(bytes));
  nft_message(&batch, NFT_MSG_GETSETELEM, NLM_F_ACK);
  nl_put_text(&batch, NFTA_SET_ELEM_LIST_TABLE, table);
  nl_put_text(&batch, NFTA_SET_ELEM_LIST_SET, set);
  size_t list = nl_nest(&batch, NFTA_SET_ELEM_LIST_ELEMENTS), one = nl_nest(&batch, NFTA_LIST_ELEM);
  nft_value(&batch, NFTA_SET_ELEM_KEY, key, sizeof(key));
  nl_end(&batch, one);
  nl_end(&batch, list);
  if (nl_query(firewall->netfilter, &batch, take_counter, counter) < 0 && errno != ENOENT) return fail(failure, "read a counter of the firewall");
  return 0;
}

struct flow_search {
  struct address source;
  struct flow *flows;
  int count;
};

static uint16_t get_be16(const uint8_t bytes[2]) { return (uint16_t)(bytes[0] << 8 | bytes[1]); }

/* A number of two bytes or one in an attribute; 0 where there is none. */
static uint16_t get_number(const uint8_t *attributes, size_t size, uint16_t type, size_t width) {
  size_t length = 0;
  const uint8_t *found = nl_find(attributes, size, type, &length);
  if (found == NULL || length != width) return 0;
  return width == 2 ? get_be16(found) : found[0];
}

/* The address that a tuple comes from, or goes to. */
static bool get_address(const uint8_t *tuple, size_t size, bool source, struct address *address) {
  size_t length = 0;
  uint32_t number;
  const uint8_t *found = nl_find(tuple, size, source ? CTA_IP_V4_SRC : CTA_IP_V4_DST, &length);
  if (found != NULL && length == sizeof(number)) {
    memcpy(&number, found, sizeof(number));
    *address = address_of_ipv4(be32toh(number));
    return true;
  }
  found = nl_find(tuple, size, source ? CTA_IP_V6_SRC : CTA_IP_V6_DST, &length);
  if (found == NULL || length != sizeof(*address)) return false;
  memcpy(address, found, sizeof(*address));
  return true;
}

/* One direction of a connection. */
struct tuple {
  const uint8_t *ip, *proto;
  size_t ip_size, proto_size;
};

static bool get_tuple(const uint8_t *attributes, size_t size, uint16_t type, struct tuple *tuple) {
  size_t length = 0;
  const uint8_t *found = nl_find(attributes, size, type, &length);
  tuple->ip = found == NULL ? NULL : nl_find(found, length, CTA_TUPLE_IP, &tuple->ip_size);
  tuple->proto = found == NULL ? NULL : nl_find(found, length, CTA_TUPLE_PROTO, &tuple->proto_size);
  return tuple->ip != NULL && tuple->proto != NULL;
}

/* What the kernel calls the parts of a ping. */
struct icmp_parts {
  uint16_t id, type, code;
};

static struct icmp_parts icmp_parts(uint8_t protocol) {
  if (protocol == IPPROTO_ICMP) return (struct icmp_parts){CTA_PROTO_ICMP_ID, CTA_PROTO_ICMP_TYPE, CTA_PROTO_ICMP_CODE};
  return (struct icmp_parts){CTA_PROTO_ICMPV6_ID, CTA_PROTO_ICMPV6_TYPE, CTA_PROTO_ICMPV6_CODE};
}

static bool is_icmp(uint8_t protocol) { return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6; }

/* Whether answers come from somewhere else than where the sandbox sent to: from another address, or from another port of the gateway. */
static bool is_redirected(const uint8_t *attributes, size_t size, const struct flow *flow) {
  struct tuple reply;
  struct address source;
  if (!get_tuple(attributes, size, CTA_TUPLE_REPLY, &reply) || !get_address(reply.ip, reply.ip_size, true, &source)) return false;
  if (!address_equal(&source, &flow->destination)) return true;
  return !is_icmp(flow->protocol) && get_number(reply.proto, reply.proto_size, CTA_PROTO_SRC_PORT, 2) != flow->destination_port;
}

static void take_flow(const uint8_t *payload, size_t size, void *context) {
  struct flow_search *search = context;
  struct tuple sent;
  struct address source;
  struct flow flow = {0};
  if (size < sizeof(struct nfgenmsg) || search->count == MAX_FLOWS) return;
  const uint8_t *attributes = payload + sizeof(struct nfgenmsg);
  size -= sizeof(struct nfgenmsg);
  if (!get_tuple(attributes, size, CTA_TUPLE_ORIG, &sent)) return;
  if (!get_address(sent.ip, sent.ip_size, true, &source) || !address_equal(&source, &search->source)) return;
  if (!get_address(sent.ip, sent.ip_size, false, &flow.destination)) return;
  flow.protocol = (uint8_t)get_number(sent.proto, sent.proto_size, CTA_PROTO_NUM, 1);
  if (flow.protocol == 0) return;
  if (is_icmp(flow.protocol)) {
    struct icmp_parts icmp = icmp_parts(flow.protocol);
    uint16_t type = get_number(sent.proto, sent.proto_size, icmp.type, 1);
    flow.source_port = get_number(sent.proto, sent.proto_size, icmp.id, 2);
    flow.destination_port = (uint16_t)(type << 8 | get_number(sent.proto, sent.proto_size, icmp.code, 1));
  } else {
    flow.source_port = get_number(sent.proto, sent.proto_size, CTA_PROTO_SRC_PORT, 2);
    flow.destination_port = get_number(sent.proto, sent.proto_size, CTA_PROTO_DST_PORT, 2);
  }
  flow.redirected = is_redirected(attributes, size, &flow);
  search->flows[search->count++] = flow;
}

static void put_address(struct nl_batch *batch, bool source, const struct address *address) {
  if (address_is_ipv4(address)) nl_put_be32(batch, source ? CTA_IP_V4_SRC : CTA_IP_V4_DST, address_low(address));
  else nl_put(batch, source ? CTA_IP_V6_SRC : CTA_IP_V6_DST, address->bytes, sizeof(address->bytes));
}

static struct nfgenmsg family_of(const struct address *address) {
  return (struct nfgenmsg){.nfgen_family = address_is_ipv4(address) ? NFPROTO_IPV4 : NFPROTO_IPV6};
}

static void put_source_filter(struct nl_batch *batch, const struct address *source) {
  size_t tuple = nl_nest(batch, CTA_TUPLE_ORIG), ip = nl_nest(batch, CTA_TUPLE_IP);
  put_address(batch, true, source);
  nl_end(batch, ip);
  nl_end(batch, tuple);
  size_t filter = nl_nest(batch, CTA_FILTER);
  nl_put_u32(batch, CTA_FILTER_ORIG_FLAGS, 1U << 0); /* CTA_FILTER_F_CTA_IP_SRC, which the kernel's headers do not export */
  nl_put_u32(batch, CTA_FILTER_REPLY_FLAGS, 0);
  nl_end(batch, filter);
}

int firewall_flows(const struct firewall *firewall, const struct address *source, struct flow *flows, int count, struct failure *failure) {
  uint8_t bytes[SMALL];
  struct nl_batch batch;
  struct flow_search search = {.source = *source, .flows = flows, .count = count};
  struct nfgenmsg family = family_of(source);
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, nf_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET), NLM_F_DUMP, &family, sizeof(family));
  /* the kernel looks only for this source, where it can (since 5.8, and of IPv4: of IPv6 it leaves out the very address); take_flow does in any case */
  if (address_is_ipv4(source)) put_source_filter(&batch, source);
  if (nl_query(firewall->netfilter, &batch, take_flow, &search) < 0) return fail(failure, "list tracked connections");
  return search.count;
}

static void put_flow(struct nl_batch *batch, const struct address *source, const struct flow *flow) {
  uint16_t source_port = htobe16(flow->source_port), destination_port = htobe16(flow->destination_port);
  size_t tuple = nl_nest(batch, CTA_TUPLE_ORIG), ip = nl_nest(batch, CTA_TUPLE_IP);
  put_address(batch, true, source);
  put_address(batch, false, &flow->destination);
  nl_end(batch, ip);
  size_t proto = nl_nest(batch, CTA_TUPLE_PROTO);
  nl_put_u8(batch, CTA_PROTO_NUM, flow->protocol);
  if (is_icmp(flow->protocol)) {
    struct icmp_parts icmp = icmp_parts(flow->protocol);
    nl_put(batch, icmp.id, &source_port, sizeof(source_port));
    nl_put_u8(batch, icmp.type, (uint8_t)(flow->destination_port >> 8));
    nl_put_u8(batch, icmp.code, (uint8_t)flow->destination_port);
  } else {
    nl_put(batch, CTA_PROTO_SRC_PORT, &source_port, sizeof(source_port));
    nl_put(batch, CTA_PROTO_DST_PORT, &destination_port, sizeof(destination_port));
  }
  nl_end(batch, proto);
  nl_end(batch, tuple);
}

int firewall_cut(const struct firewall *firewall, const struct address *source, const struct flow *flow, struct failure *failure) {
  uint8_t bytes[SMALL];
  struct nl_batch batch;
  struct nfgenmsg family = family_of(source);
  nl_start(&batch, bytes, sizeof(bytes));
  (void)nl_message(&batch, nf_type(NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE), NLM_F_ACK, &family, sizeof(family));
  put_flow(&batch, source, flow);
  if (nl_transact(firewall->netfilter, &batch, ENOENT) < 0) return fail(failure, "forget a tracked connection");
  return 0;
}

static bool is_our_table(const uint8_t *payload, size_t size) {
  struct nfgenmsg header;
  size_t length = 0;
  if (size < sizeof(header)) return false;
  memcpy(&header, payload, sizeof(header));
  const uint8_t *name = nl_find(payload + sizeof(header), size - sizeof(header), NFTA_TABLE_NAME, &length);
  return header.nfgen_family == NFPROTO_INET && name != NULL && length == sizeof(table) && memcmp(name, table, length) == 0;
}

bool firewall_is_gone(const struct firewall *firewall) {
  static _Alignas(struct nlmsghdr) uint8_t buffer[NETLINK_RECEIVE];
  bool gone = false;
  for (;;) {
    ssize_t count = recv(firewall->changes, buffer, sizeof(buffer), MSG_DONTWAIT | MSG_TRUNC);
    if (count < 0 && errno == ENOBUFS) return true; /* too much happened to know what: whoever asks looks again */
    if (count < 0) return gone;
    size_t at = 0, size = (size_t)count > sizeof(buffer) ? 0 : (size_t)count;
    for (const struct nlmsghdr *message; (message = nl_step(buffer, size, &at)) != NULL;) {
      bool made = message->nlmsg_type == nf_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWTABLE);
      if (!made && message->nlmsg_type != nf_type(NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE)) continue;
      if (is_our_table(NLMSG_DATA(message), message->nlmsg_len - NLMSG_HDRLEN)) gone = !made;
    }
  }
}

/* A packet's first bytes. Fragments were put together before, and IPv6 headers in between refused, so that a port is where it should be. */
static bool understand_packet(const uint8_t *bytes, size_t size, struct logged_packet *packet) {
  enum { HEADER4 = 20, HEADER6 = 40 };
  size_t header;
  if (size >= HEADER4 && bytes[0] >> 4 == 4) {
    uint32_t ends[2];
    header = (size_t)(bytes[0] & 15) * 4;
    if (header < HEADER4) return false;
    packet->protocol = bytes[9];
    memcpy(ends, bytes + 12, sizeof(ends));
    packet->source = address_of_ipv4(be32toh(ends[0]));
    packet->destination = address_of_ipv4(be32toh(ends[1]));
  } else if (size >= HEADER6 && bytes[0] >> 4 == 6) {
    header = HEADER6;
    packet->protocol = bytes[6];
    memcpy(&packet->source, bytes + 8, sizeof(packet->source));
    memcpy(&packet->destination, bytes + 24, sizeof(packet->destination));
  } else {
    return false;
  }
  bool has_ports = packet->protocol == IPPROTO_TCP || packet->protocol == IPPROTO_UDP;
  packet->destination_port = has_ports && size >= header + 4 ? get_be16(bytes + header + 2) : 0;
  return true;
}

void firewall_read_log(const struct firewall *firewall, void (*each)(const struct logged_packet *packet, void *context), void *context) {
  static _Alignas(struct nlmsghdr) uint8_t buffer[NETLINK_RECEIVE];
  ssize_t count = recv(firewall->log, buffer, sizeof(buffer), MSG_DONTWAIT);
  size_t at = 0;
  for (const struct nlmsghdr *message; count > 0 && (message = nl_step(buffer, (size_t)count, &at)) != NULL;) {
    size_t prefix_size = 0, size = 0, total = message->nlmsg_len - NLMSG_HDRLEN;
    struct logged_packet packet = {0};
    if (message->nlmsg_type != nf_type(NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET) || total < sizeof(struct nfgenmsg)) continue;
    const uint8_t *attributes = (const uint8_t *)NLMSG_DATA(message) + sizeof(struct nfgenmsg);
    const uint8_t *prefix = nl_find(attributes, total - sizeof(struct nfgenmsg), NFULA_PREFIX, &prefix_size);
    const uint8_t *bytes = nl_find(attributes, total - sizeof(struct nfgenmsg), NFULA_PAYLOAD, &size);
    if (prefix == NULL || prefix_size == 0 || bytes == NULL || !understand_packet(bytes, size, &packet)) continue;
    packet.allowed = prefix[0] == 'a';
    each(&packet, context);
  }
}
