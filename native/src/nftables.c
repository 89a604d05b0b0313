#include "kernel_api.h"

#include "nftables.h"

#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

uint16_t nf_type(int subsystem, int message) { return (uint16_t)(subsystem << 8 | message); }

static void put_batch_mark(struct nl_batch *batch, uint16_t type) {
  const struct nfgenmsg header = {.nfgen_family = NFPROTO_UNSPEC, .res_id = htobe16(NFNL_SUBSYS_NFTABLES)};
  (void)nl_message(batch, type, 0, &header, sizeof(header));
}

void nft_begin(struct nl_batch *batch) { put_batch_mark(batch, NFNL_MSG_BATCH_BEGIN); }

void nft_end(struct nl_batch *batch) { put_batch_mark(batch, NFNL_MSG_BATCH_END); }

void nft_message(struct nl_batch *batch, int message, uint16_t flags) {
  const struct nfgenmsg header = {.nfgen_family = NFPROTO_INET};
  (void)nl_message(batch, nf_type(NFNL_SUBSYS_NFTABLES, message), flags, &header, sizeof(header));
}

void nft_value(struct nl_batch *batch, uint16_t type, const void *value, size_t size) {
  size_t nest = nl_nest(batch, type);
  nl_put(batch, NFTA_DATA_VALUE, value, size);
  nl_end(batch, nest);
}
