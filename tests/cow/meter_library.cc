#include <cowshed/tests/cow/meter_library.h>

namespace cowshed::cow::test {
namespace {

alignas(4096) char data[2 * 4096] = {1};  // .data: of a private mapping of the file

}  // namespace

const char* library_data() { return data; }

void write_to_library_data() { data[4096] = 2; }  // kLibraryLine

}  // namespace cowshed::cow::test
