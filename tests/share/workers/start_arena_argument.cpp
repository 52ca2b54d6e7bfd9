// Must not compile.

#include <utility>

#include <cowshed/share/arena.h>
#include <cowshed/share/workers.h>

void take(const cowshed::Arena& arena);

void start_it(cowshed::Arena& arena) { (void)cowshed::start<take>({}, arena); }
