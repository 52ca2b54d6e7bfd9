#pragma once

#include <cowshed/tests/support/child.h>
