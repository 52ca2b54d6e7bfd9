#pragma once

#include <string>
#include <vector>

#include <cowshed/cow/copy_profile.h>
#include <cowshed/cow/profile/tallies.h>
#include <cowshed/cow/symbolize/symbolizer.h>

// What reports show of a stack.
namespace cowshed::cow {

// Returns the stack of a thread of Python: of `native`, the frames that the innermost of the
// interpreter's own frames called, then `python`, then those of `native` that end the program.  All
// frames are innermost first.  A compiler of Python stays, too.
std::vector<Frame> with_python_frames(std::vector<Frame> native,
                                      const std::vector<const Frame*>& python);

// Returns the frames of a stack with names, innermost first.
std::vector<Frame> frames_of(const Tally::Stack& stack, Symbolizer& symbols);

// Returns the innermost frames up to the first line of the program, for CodeSite::frames: a line of
// its own sources, inlined or not, else a function of its binaries; all if there is neither.  If
// the innermost function of its binaries has no name, it is the line or the name of a caller.
std::vector<Frame> site_frames(const std::vector<Frame>& stack);

// Returns FoldedStack::folded.
std::string fold(const std::vector<Frame>& stack, bool truncated);

}  // namespace cowshed::cow
