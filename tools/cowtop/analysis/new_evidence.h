#pragma once

#include <cowshed/tools/cowtop/analysis/remedy.h>

// As evidence.h, of new memory.
namespace cowshed::cowtop {

// Memory that is free in malloc or pymalloc.
Offers of_free_blocks(const Remedy& remedy, const Evidence& evidence);
// Several processes of one program that no fork connects hold as much, made at the same line.
Offers of_started_alike(const Remedy& remedy, const Evidence& evidence);
// The same of a server that is named by the remedy's cause.  It saves something if a test follows
// the remedy, and the line is known.
Offers of_server_started(const Remedy& remedy, const Evidence& evidence);
// Workers of that name hold much, and not for a reason that another remedy has.
Offers of_server_grown(const Remedy& remedy, const Evidence& evidence);
// Workers of that name, which share no memory, received most of theirs.
Offers of_arrays_sent(const Remedy& remedy, const Evidence& evidence);
// A library of that name touched much of the new memory first.
Offers of_library(const Remedy& remedy, const Evidence& evidence);
// Whether the remedy's cause is the name of a server or a library: one of these four.
bool is_of_program(const Remedy& remedy);
// New memory that several children have alike.
Offers of_imports(const Remedy& remedy, const Evidence& evidence);
// Much of it is pages of zeros in huge pages, which the program did not ask for.
Offers of_sparse_pages(const Remedy& remedy, const Evidence& evidence);
Offers of_own_data(const Remedy& remedy, const Evidence& evidence);
Offers of_received(const Remedy& remedy, const Evidence& evidence);
// The out-of-memory killer struck.  Findings drop it where another remedy saves enough.
Offers of_limit(const Remedy& remedy, const Evidence& evidence);
Offers of_loaded(const Remedy& remedy, const Evidence& evidence);

}  // namespace cowshed::cowtop
