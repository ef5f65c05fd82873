// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What only ring 0 can try: instructions of SVM with an address of somebody else's. It does one
 * thing when it is loaded, says how that ended by the error of loading it, and never stays:
 * EAGAIN: the CPU carried it out. EFAULT: the CPU refused with a fault. EINVAL: no such attempt.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/module.h>
#include <asm/msr.h>

static char *attempt = "";
module_param(attempt, charp, 0);
static unsigned long address;
module_param(address, ulong, 0);

/* An instruction that takes a physical address in rax. Not 0: it faulted. */
#define SVM(instruction, physical)                                                             \
	({                                                                                     \
		int fault = 0;                                                                 \
		asm volatile("1: " instruction "\n2:\n"                                        \
			     ".pushsection .fixup, \"ax\"\n3: mov $1, %0\n jmp 2b\n"           \
			     ".popsection\n" _ASM_EXTABLE(1b, 3b)                              \
			     : "+r"(fault) : "a"(physical) : "memory", "cc");                  \
		fault;                                                                         \
	})

/* Moves where the CPU saves its own state at VMRUN, and back. */
static int move_save_area(void)
{
	u64 old, new = 0;

	if (rdmsrl_safe(MSR_VM_HSAVE_PA, &old) || wrmsrl_safe(MSR_VM_HSAVE_PA, address))
		return -EFAULT;
	rdmsrl_safe(MSR_VM_HSAVE_PA, &new);
	wrmsrl_safe(MSR_VM_HSAVE_PA, old);
	pr_emerg("ringzero: the save area was at %#llx\n", new);
	return new == address ? -EAGAIN : -EFAULT;
}

/* Loads segments and system registers from there, saves them where they can be read, and puts
 * the own ones back. Between the two nothing may use gs. */
static int load_state(unsigned long own, unsigned long seen)
{
	int fault;

	SVM("vmsave %%rax", own);
	asm volatile("mov %1, %%rax\n"
		     "1: vmload %%rax\n"
		     "mov %2, %%rax\n vmsave %%rax\n mov %3, %%rax\n vmload %%rax\n"
		     "xor %0, %0\n jmp 4f\n"
		     "2: mov $1, %0\n"
		     "4:\n" _ASM_EXTABLE(1b, 2b)
		     : "=&r"(fault) : "r"(address), "r"(seen), "r"(own) : "rax", "memory", "cc");
	if (fault)
		return -EFAULT;
	pr_emerg("ringzero: vmload took lstar %#llx\n", *(u64 *)phys_to_virt(seen + 0x608));
	return -EAGAIN;
}

/* Runs whatever is there as a guest. What is none makes the CPU say so in it. */
static int run_guest(unsigned long save_area)
{
	u64 old;
	int fault;

	rdmsrl(MSR_VM_HSAVE_PA, old);
	wrmsrl(MSR_VM_HSAVE_PA, save_area);
	asm volatile("push %%rbp\n"
		     "1: vmrun %%rax\n"
		     "stgi\n xor %0, %0\n jmp 4f\n"
		     "2: mov $1, %0\n"
		     "4: pop %%rbp\n" _ASM_EXTABLE(1b, 2b)
		     : "=&b"(fault) : "a"(address)
		     : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
		       "r15", "memory", "cc");
	wrmsrl(MSR_VM_HSAVE_PA, old);
	return fault ? -EFAULT : -EAGAIN;
}

static int __init ringzero_start(void)
{
	unsigned long pages = __get_free_pages(GFP_KERNEL | __GFP_ZERO, 1);
	unsigned long own = virt_to_phys((void *)pages);
	unsigned long flags;
	u64 efer;
	int answer = -EINVAL;

	if (!pages)
		return -ENOMEM;
	local_irq_save(flags);
	rdmsrl(MSR_EFER, efer);
	wrmsrl_safe(MSR_EFER, efer | EFER_SVME);
	if (!strcmp(attempt, "hsave"))
		answer = move_save_area();
	else if (!strcmp(attempt, "vmload"))
		answer = load_state(own, own + PAGE_SIZE);
	else if (!strcmp(attempt, "vmrun"))
		answer = run_guest(own);
	wrmsrl_safe(MSR_EFER, efer);
	local_irq_restore(flags);
	free_pages(pages, 1);
	return answer;
}
module_init(ringzero_start);

MODULE_DESCRIPTION("Tries SVM's instructions with an address of somebody else's");
MODULE_LICENSE("Dual MIT/GPL");
