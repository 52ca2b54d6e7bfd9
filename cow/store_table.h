#pragma once

#include <cowshed/cow/store_instruction.h>

namespace cowshed::cow {

// How the instruction of this number (capstone's x86_insn) writes to memory, if its operands are
// such that it does: `vector` where its width may also make it part of a fill or a copy, `store`
// for the string instructions, which a prefix repeats.  `unknown`: not in the table.
StoreKind store_kind_of(unsigned id);

}  // namespace cowshed::cow
