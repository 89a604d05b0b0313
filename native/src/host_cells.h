/* The operations on cells that take time, and the events of cells. */
#ifndef SQ_HOST_CELLS_H
#define SQ_HOST_CELLS_H

#include "host_ops.h"

enum outcome op_cell_make(struct host *host, uint32_t request, struct reader *reader, struct failure *failure);
enum outcome op_cell_kill(struct host *host, uint32_t request, struct reader *reader, struct failure *failure);
int op_cell_adopt(struct host *host, struct reader *reader, struct failure *failure);

#endif
