#pragma once

#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cow {

// Adds all but the kMostObjects with the most copies up, in a last entry of kFurtherObjects.
void keep_most_copied(std::vector<ObjectCopies>& objects);
void keep_most_sent(std::vector<SentObjects>& sent);

void add_counts(SentObjects& to, const SentObjects& more);

}  // namespace cowshed::cow
