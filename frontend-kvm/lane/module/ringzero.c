// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * What only ring 0 can try: instructions of SVM with an address of somebody else's. It does one
 * thing when it is loaded, says how that ended by the error of loading it, and never stays:
 * EAGAIN: the CPU carried it out. EFAULT: the CPU refused with a fault. EINVAL: no such attempt.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <asm/msr.h>

static char *attempt = "";
module_param(attempt, charp, 0);
static unsigned long address;
module_param(address, ulong, 0);

/* Reads the first word of it, as any memory is read. All ones is what nobody answers with. */
static int peek(void)
{
	void *mapped = memremap(address, PAGE_SIZE, MEMREMAP_WB);
	u64 word = ~0ULL;
	int fault;

	if (!mapped)
		return -ENOMEM;
	fault = copy_from_kernel_nofault(&word, mapped, sizeof(word));
	memunmap(mapped);
	return fault || word == ~0ULL ? -EFAULT : -EAGAIN;
}

/* Moves where the CPU saves its own state at VMRUN, and back. */
static int move_save_area(void)
{
	u64 old, new = 0;

	if (rdmsrl_safe(MSR_VM_HSAVE_PA, &old) || wrmsrl_safe(MSR_VM_HSAVE_PA, address))
		return -EFAULT;
	rdmsrl_safe(MSR_VM_HSAVE_PA, &new);
	wrmsrl_safe(MSR_VM_HSAVE_PA, old);
	return new == address ? -EAGAIN : -EFAULT;
}

/* Loads segments and system registers from there, and puts the own ones back. Between the two
 * nothing may use gs. */
static int load_state(unsigned long own)
{
	int fault;

	asm volatile("mov %2, %%rax\n vmsave %%rax\n"
		     "mov %1, %%rax\n"
		     "1: vmload %%rax\n"
		     "mov %2, %%rax\n vmload %%rax\n xor %0, %0\n jmp 4f\n"
		     "2: mov $1, %0\n"
		     "4:\n" _ASM_EXTABLE(1b, 2b)
		     : "=&r"(fault) : "r"(address), "r"(own) : "rax", "memory", "cc");
	return fault ? -EFAULT : -EAGAIN;
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

/* With SVM switched on, and interrupts off. */
static int attempt_svm(unsigned long own)
{
	unsigned long flags;
	u64 efer;
	int answer = -EINVAL;

	local_irq_save(flags);
	rdmsrl(MSR_EFER, efer);
	wrmsrl_safe(MSR_EFER, efer | EFER_SVME);
	if (!strcmp(attempt, "hsave"))
		answer = move_save_area();
	else if (!strcmp(attempt, "vmload"))
		answer = load_state(own);
	else if (!strcmp(attempt, "vmrun"))
		answer = run_guest(own);
	wrmsrl_safe(MSR_EFER, efer);
	local_irq_restore(flags);
	return answer;
}

static int __init ringzero_start(void)
{
	unsigned long page = get_zeroed_page(GFP_KERNEL);
	int answer;

	if (!page)
		return -ENOMEM;
	answer = strcmp(attempt, "peek") ? attempt_svm(virt_to_phys((void *)page)) : peek();
	free_page(page);
	return answer;
}
module_init(ringzero_start);

MODULE_DESCRIPTION("Tries SVM's instructions with an address of somebody else's");
MODULE_LICENSE("Dual MIT/GPL");
