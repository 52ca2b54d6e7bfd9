#pragma once

namespace cowshed::test {

// This process becomes root of a user namespace of its own, with all its capabilities.  Ends with
// status 124 where it cannot.
void enter_user_namespace();

}  // namespace cowshed::test
