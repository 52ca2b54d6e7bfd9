#pragma once

// A shared library with data of its own.
namespace cowshed::cow::test {

const char* library_data();    // two pages
void write_to_library_data();  // to the second one, in the line of meter_library.cc:
inline constexpr int kLibraryLine = 12;

}  // namespace cowshed::cow::test
