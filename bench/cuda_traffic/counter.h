// Counts what CUDA kernels load and store while they run on the CPU (tests/csrc/cuda_on_cpu.h).
//
// The kernels are compiled with -fsanitize=thread, which puts a call before each access to memory, and are linked
// with counter.cpp, which defines these calls, in the place of the sanitizer's library.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace cvf::traffic {

// What one launch does. Bytes are those of whole sectors.
struct Launch {
  std::string kernel;  // its symbol
  int64_t blocks, threads, shared_bytes;
  int64_t dram = 0;           // bytes: read before the call has written them, or written; once in a call
  int64_t l2 = 0;             // bytes: that blocks load, or store
  int64_t shared = 0;         // wavefronts of shared memory: 32 banks of 4 bytes
  int64_t conflict_free = 0;  // as many as it would take if no two words of a request were in one bank
  int64_t barriers = 0;       // of the block that has most, as the next two
  int64_t round_trips = 0;    // between barriers: phases that load from global memory
  int64_t exchanges = 0;      // between lanes: of the warp that has most
};

// Memory of the device, aligned to sectors, which is counted. Other memory, as that of stacks, is not.
void add_memory(const void* data, size_t bytes);

// The launches between the two, with all memory forgotten afterwards.
void begin_call();
std::vector<Launch> end_call();

}  // namespace cvf::traffic
