// Runs a test that is compiled for one instruction set, if this machine has it. Not compiled for that set itself.

#include <cstdio>
#include <cstring>

#include "common/isa.h"

int run_test();  // the number of an exit

int main() {
  for (const cvf::Isa isa : cvf::kAllIsas) {
    if (std::strcmp(cvf::isa_name(isa), CVF_TEST_ISA) == 0 && !cvf::isa_available(isa)) {
      std::printf("skipped: this machine does not have %s\n", CVF_TEST_ISA);
      return 0;
    }
  }
  return run_test();
}
