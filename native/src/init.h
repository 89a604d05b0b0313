/* Pid 1 of a cell: accepts connections, forks a session for each, and reaps whatever dies. */
#ifndef SQ_INIT_H
#define SQ_INIT_H

/* `listener` is a non-blocking listening socket, `proc` a directory descriptor of the cell's own /proc. */
_Noreturn void run_init(int listener, int proc);

#endif
