#pragma once

// The facts of the CPU.  docs/architecture.md says what else a port to another CPU needs.
#ifdef __x86_64__
#include <cowshed/base/arch/x86_64.h>
#else
#error "Cowshed runs on x86-64 only: for another CPU add a header like base/arch/x86_64.h"
#endif
