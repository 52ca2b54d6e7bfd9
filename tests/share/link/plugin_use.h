#pragma once

#include <string>

// What fails of an arena, a publication, a channel and workers of this name; empty: nothing.
std::string use_cowshed(const std::string& name);
