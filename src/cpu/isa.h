/* Names of what is compiled once per instruction set. A file *_isa.c is built with
 * -DTNI_ISA=ref (no extra flags), avx2, avx512 or neon, and exports TNI_FN(name), which is
 * tni_name_avx2 and so on; the driver's header declares one for each set. */
#ifndef TNI_CPU_ISA_H
#define TNI_CPU_ISA_H

#define TNI_PASTE_(a, b) tni_##a##_##b
#define TNI_PASTE(a, b)  TNI_PASTE_(a, b)
#define TNI_FN(name)     TNI_PASTE(name, TNI_ISA)

#define TNI_ISA_STR_(isa) #isa
#define TNI_ISA_STR(isa)  TNI_ISA_STR_(isa)
#define TNI_ISA_NAME      TNI_ISA_STR(TNI_ISA)

#endif
