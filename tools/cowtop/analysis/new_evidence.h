#pragma once

#include <cowshed/tools/cowtop/analysis/remedy.h>

// As evidence.h, of new memory.
namespace cowshed::cowtop {

// Memory that is free in malloc.
Offers of_free_blocks(const Remedy& remedy, const Evidence& evidence);
// Several processes of one program that no fork connects hold as much, made at the same line.
Offers of_started_alike(const Remedy& remedy, const Evidence& evidence);
// New memory that several children have alike.
Offers of_imports(const Remedy& remedy, const Evidence& evidence);
Offers of_own_data(const Remedy& remedy, const Evidence& evidence);
Offers of_received(const Remedy& remedy, const Evidence& evidence);
Offers of_loaded(const Remedy& remedy, const Evidence& evidence);

}  // namespace cowshed::cowtop
