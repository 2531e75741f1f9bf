// Large buffers, kept for the next call when they are freed.
//
// glibc gives large blocks back to the system, so that each call would fault in every page of its gradients anew:
// at (1024, 64, 64) that costs as much as computing them. A freed buffer is kept here instead, up to a limit.
#pragma once

#include <cstddef>

namespace cvf {

// Uninitialised memory, aligned to a cache line. Throws std::bad_alloc.
void* acquire_buffer(size_t bytes);

// Gives back a buffer that was acquired with the same number of bytes.
void release_buffer(void* buffer, size_t bytes) noexcept;

// The same for working memory, from a stack of the calling thread while there is room. What was acquired last goes
// back first.
void* acquire_scratch(size_t bytes);
void release_scratch(void* buffer, size_t bytes) noexcept;

// Bytes that are kept, and none in use; they can be returned to the system.
size_t cached_bytes();
void release_cached_buffers();

}  // namespace cvf
