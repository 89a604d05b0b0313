#include "kernel_api.h"

#include "guard.h"

#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <time.h>

#include "io.h"
#include "link.h"
#include "nftables.h"

enum {
  MESSAGES = 4096,
  TRIES = 250,
  TRY_NS = 20 * 1000 * 1000,
  BEFORE_UNMARK = -80, /* ruleset.ts stamps at -90 and takes the stamp away at -70 */
  BEFORE_FILTER = -2,
  /* NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED, which the kernel's headers leave to nft */
  ANSWERS = 2 | 4,
};

static const char table[] = "squash_guard";

struct expression {
  size_t element, data;
};

static struct expression begin_expression(struct nl_batch *batch, const char *name) {
  struct expression expression = {.element = nl_nest(batch, NFTA_LIST_ELEM)};
  nl_put_text(batch, NFTA_EXPR_NAME, name);
  expression.data = nl_nest(batch, NFTA_EXPR_DATA);
  return expression;
}

static void end_expression(struct nl_batch *batch, struct expression expression) {
  nl_end(batch, expression.data);
  nl_end(batch, expression.element);
}

static void put_meta(struct nl_batch *batch, uint32_t key) {
  struct expression meta = begin_expression(batch, "meta");
  nl_put_be32(batch, NFTA_META_KEY, key);
  nl_put_be32(batch, NFTA_META_DREG, NFT_REG_1);
  end_expression(batch, meta);
}

static void put_compare(struct nl_batch *batch, uint32_t op, uint32_t value) {
  struct expression compare = begin_expression(batch, "cmp");
  nl_put_be32(batch, NFTA_CMP_SREG, NFT_REG_1);
  nl_put_be32(batch, NFTA_CMP_OP, op);
  nft_value(batch, NFTA_CMP_DATA, &value, sizeof(value));
  end_expression(batch, compare);
}

/* Loads which of `bits` the packet's connection has. */
static void put_connection_state(struct nl_batch *batch, uint32_t bits) {
  const uint32_t none = 0;
  struct expression state = begin_expression(batch, "ct");
  nl_put_be32(batch, NFTA_CT_KEY, NFT_CT_STATE);
  nl_put_be32(batch, NFTA_CT_DREG, NFT_REG_1);
  end_expression(batch, state);
  struct expression and = begin_expression(batch, "bitwise");
  nl_put_be32(batch, NFTA_BITWISE_SREG, NFT_REG_1);
  nl_put_be32(batch, NFTA_BITWISE_DREG, NFT_REG_1);
  nl_put_be32(batch, NFTA_BITWISE_LEN, sizeof(bits));
  nft_value(batch, NFTA_BITWISE_MASK, &bits, sizeof(bits));
  nft_value(batch, NFTA_BITWISE_XOR, &none, sizeof(none));
  end_expression(batch, and);
}

static void put_drop(struct nl_batch *batch) {
  struct expression immediate = begin_expression(batch, "immediate");
  nl_put_be32(batch, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
  size_t data = nl_nest(batch, NFTA_IMMEDIATE_DATA), verdict = nl_nest(batch, NFTA_DATA_VERDICT);
  nl_put_be32(batch, NFTA_VERDICT_CODE, NF_DROP);
  nl_end(batch, verdict);
  nl_end(batch, data);
  end_expression(batch, immediate);
}

static void put_chain(struct nl_batch *batch, const char *name, uint32_t hook, int32_t priority) {
  nft_message(batch, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
  nl_put_text(batch, NFTA_CHAIN_TABLE, table);
  nl_put_text(batch, NFTA_CHAIN_NAME, name);
  nl_put_text(batch, NFTA_CHAIN_TYPE, "filter");
  size_t nest = nl_nest(batch, NFTA_CHAIN_HOOK);
  nl_put_be32(batch, NFTA_HOOK_HOOKNUM, hook);
  nl_put_be32(batch, NFTA_HOOK_PRIORITY, (uint32_t)priority);
  nl_end(batch, nest);
}

static size_t begin_rule(struct nl_batch *batch, const char *chain, uint16_t flags) {
  nft_message(batch, NFT_MSG_NEWRULE, (uint16_t)(NLM_F_CREATE | NLM_F_APPEND | flags));
  nl_put_text(batch, NFTA_RULE_TABLE, table);
  nl_put_text(batch, NFTA_RULE_CHAIN, chain);
  return nl_nest(batch, NFTA_RULE_EXPRESSIONS);
}

/* meta iifgroup <ours> meta mark != <stamp> drop */
static void put_sent(struct nl_batch *batch) {
  put_chain(batch, "sent", NF_INET_PRE_ROUTING, BEFORE_UNMARK);
  size_t rule = begin_rule(batch, "sent", 0);
  put_meta(batch, NFT_META_IIFGROUP);
  put_compare(batch, NFT_CMP_EQ, LINK_GROUP);
  put_meta(batch, NFT_META_MARK);
  put_compare(batch, NFT_CMP_NEQ, GUARD_STAMP);
  put_drop(batch);
  nl_end(batch, rule);
}

/* meta oifgroup <ours> ct state != established,related drop */
static void put_received(struct nl_batch *batch, const char *chain, uint32_t hook, uint16_t flags) {
  put_chain(batch, chain, hook, BEFORE_FILTER);
  size_t rule = begin_rule(batch, chain, flags);
  put_meta(batch, NFT_META_OIFGROUP);
  put_compare(batch, NFT_CMP_EQ, LINK_GROUP);
  put_connection_state(batch, ANSWERS);
  put_compare(batch, NFT_CMP_EQ, 0);
  put_drop(batch);
  nl_end(batch, rule);
}

static int make_table(int netfilter) {
  uint8_t bytes[MESSAGES];
  struct nl_batch batch;
  nl_start(&batch, bytes, sizeof(bytes));
  nft_begin(&batch);
  nft_message(&batch, NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL);
  nl_put_text(&batch, NFTA_TABLE_NAME, table);
  nl_put_be32(&batch, NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER);
  put_sent(&batch);
  put_received(&batch, "forwarded", NF_INET_FORWARD, 0);
  put_received(&batch, "from_host", NF_INET_LOCAL_OUT, NLM_F_ACK);
  nft_end(&batch);
  return nl_transact(netfilter, &batch, 0);
}

int guard_open(int netfilter, struct failure *failure) {
  const struct timespec a_while = {.tv_nsec = TRY_NS};
  for (int try = 0; make_table(netfilter) < 0; try++) {
    bool is_owned = errno == EPERM || errno == EEXIST; /* by another process that is about to end */
    if (!is_owned || try == TRIES) return fail(failure, "make the table that guards the firewall");
    (void)nanosleep(&a_while, NULL);
  }
  return 0;
}
