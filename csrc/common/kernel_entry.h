// How an op reaches its kernels, which are compiled once for each instruction set, in a namespace named after it.
#pragma once

#include "common/isa.h"

// Declares `template <class T> void function(const Arguments<T>&, int threads)` in the namespace of each set.
#define CVF_DECLARE_KERNEL(function, Arguments)         \
  namespace baseline {                                  \
  template <class T>                                    \
  void function(const Arguments<T>& args, int threads); \
  }                                                     \
  namespace avx2 {                                      \
  template <class T>                                    \
  void function(const Arguments<T>& args, int threads); \
  }                                                     \
  namespace avx512 {                                    \
  template <class T>                                    \
  void function(const Arguments<T>& args, int threads); \
  }

// Calls function(args, threads) of the instruction set `isa`, which is there.
#if defined(CVF_HAVE_AVX512)
#define CVF_CALL_KERNEL(isa, function, args, threads)               \
  ((isa) == ::cvf::Isa::kAvx512 ? avx512::function((args), threads) \
   : (isa) == ::cvf::Isa::kAvx2 ? avx2::function((args), threads)   \
                                : baseline::function((args), threads))
#elif defined(CVF_HAVE_AVX2)
#define CVF_CALL_KERNEL(isa, function, args, threads) \
  ((isa) == ::cvf::Isa::kAvx2 ? avx2::function((args), threads) : baseline::function((args), threads))
#else
#define CVF_CALL_KERNEL(isa, function, args, threads) ((void)(isa), baseline::function((args), threads))
#endif
