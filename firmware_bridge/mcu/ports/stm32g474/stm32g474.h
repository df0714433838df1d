/* Registers of the STM32G474 that this port uses. RM0440 rev 8; the section is named at each block. */
#ifndef EW_STM32G474_H
#define EW_STM32G474_H

/* RCC, section 7 */
#define RCC_CR 0x40021000u
#define RCC_CR_HSION (1u << 8)
#define RCC_CR_HSIRDY (1u << 10)
#define RCC_CR_HSEON (1u << 16)
#define RCC_CR_HSERDY (1u << 17)
#define RCC_CR_CSSON (1u << 19)
#define RCC_CR_PLLON (1u << 24)
#define RCC_CR_PLLRDY (1u << 25)
#define RCC_CFGR 0x40021008u
#define RCC_CFGR_SW_PLL 3u
#define RCC_CFGR_SWS_PLL (3u << 2)
#define RCC_CFGR_HPRE_SHIFT 4u
#define RCC_CFGR_HPRE_1 0u
#define RCC_CFGR_HPRE_2 8u
#define RCC_PLLCFGR 0x4002100Cu
#define RCC_CIFR 0x4002101Cu
#define RCC_CIFR_CSSF (1u << 8)
#define RCC_CICR 0x40021020u
#define RCC_AHB1ENR 0x40021048u
#define RCC_AHB2ENR 0x4002104Cu
#define RCC_AHB2ENR_GPIOA (1u << 0)
#define RCC_AHB2ENR_GPIOB (1u << 1)
#define RCC_AHB2ENR_GPIOC (1u << 2)
#define RCC_AHB2ENR_RNG (1u << 26)
#define RCC_APB1ENR1 0x40021058u
#define RCC_APB1ENR1_TIM2 (1u << 0)
#define RCC_APB1ENR1_CRS (1u << 8)
#define RCC_APB1ENR1_WWDG (1u << 11)
#define RCC_APB1ENR1_USART2 (1u << 17)
#define RCC_APB1ENR1_USART3 (1u << 18)
#define RCC_APB1ENR1_USB (1u << 23)
#define RCC_APB1ENR1_FDCAN (1u << 25)
#define RCC_APB1ENR1_PWR (1u << 28)
#define RCC_APB2ENR 0x40021060u
#define RCC_APB2ENR_SYSCFG (1u << 0)
#define RCC_APB2ENR_USART1 (1u << 14)
#define RCC_CCIPR 0x40021088u
#define RCC_CCIPR_FDCAN_SHIFT 24u /* 2: PCLK1 */
#define RCC_CCIPR_CLK48_SHIFT 26u /* 0: HSI48 */
#define RCC_CSR 0x40021094u
#define RCC_CSR_RMVF (1u << 23)
#define RCC_CSR_OBLRSTF (1u << 25)
#define RCC_CSR_PINRSTF (1u << 26)
#define RCC_CSR_BORRSTF (1u << 27)
#define RCC_CSR_SFTRSTF (1u << 28)
#define RCC_CSR_IWDGRSTF (1u << 29)
#define RCC_CSR_WWDGRSTF (1u << 30)
#define RCC_CSR_LPWRRSTF (1u << 31)
#define RCC_CRRCR 0x40021098u
#define RCC_CRRCR_HSI48ON (1u << 0)
#define RCC_CRRCR_HSI48RDY (1u << 1)

/* PWR, section 6 */
#define PWR_CR1 0x40007000u
#define PWR_CR1_VOS_SHIFT 9u /* 1: range 1 */
#define PWR_CR2 0x40007004u
#define PWR_CR2_PVDE (1u << 0)
#define PWR_CR2_PLS_SHIFT 1u
#define PWR_SR2 0x40007014u
#define PWR_SR2_VOSF (1u << 10)
#define PWR_SR2_PVDO (1u << 11)
#define PWR_CR5 0x40007080u
#define PWR_CR5_R1MODE (1u << 8) /* 0: boost */

/* FLASH, section 5 (the part with two banks) */
#define FLASH_ACR 0x40022000u
#define FLASH_ACR_PRFTEN (1u << 8)
#define FLASH_ACR_ICEN (1u << 9)
#define FLASH_ACR_DCEN (1u << 10)
#define FLASH_ACR_DCRST (1u << 12)
#define FLASH_KEYR 0x40022008u
#define FLASH_SR 0x40022010u
#define FLASH_SR_BSY (1u << 16)
#define FLASH_SR_ERRORS 0xC3FAu
#define FLASH_CR 0x40022014u
#define FLASH_CR_PG (1u << 0)
#define FLASH_CR_PER (1u << 1)
#define FLASH_CR_PNB_SHIFT 3u
#define FLASH_CR_BKER (1u << 11)
#define FLASH_CR_STRT (1u << 16)
#define FLASH_CR_LOCK (1u << 31)
#define FLASH_ECCR 0x40022018u
#define FLASH_ECCR_ECCD (1u << 31)

/* GPIO, section 9 */
#define GPIOA 0x48000000u
#define GPIOB 0x48000400u
#define GPIOC 0x48000800u
#define GPIO_MODER 0x00u   /* 0 input, 1 output, 2 alternate, 3 analog */
#define GPIO_OTYPER 0x04u  /* 1 open drain */
#define GPIO_OSPEEDR 0x08u /* 0 slow .. 3 fast */
#define GPIO_PUPDR 0x0Cu   /* 0 none, 1 up, 2 down */
#define GPIO_IDR 0x10u
#define GPIO_BSRR 0x18u    /* low half sets, high half resets */
#define GPIO_AFR 0x20u     /* 8 pins a word */

/* EXTI, section 15: line 16 is the voltage detector */
#define EXTI_IMR1 0x40010400u
#define EXTI_RTSR1 0x40010408u
#define EXTI_PR1 0x40010414u
#define EXTI_PVD (1u << 16)

/* TIM2, section 29: 32 bits */
#define TIM2_CR1 0x40000000u
#define TIM2_EGR 0x40000014u
#define TIM2_CNT 0x40000024u
#define TIM2_PSC 0x40000028u
#define TIM2_ARR 0x4000002Cu

/* USART, section 37 */
#define USART1 0x40013800u
#define USART2 0x40004400u
#define USART3 0x40004800u
#define USART_CR1 0x00u
#define USART_CR1_UE (1u << 0)
#define USART_CR1_RE (1u << 2)
#define USART_CR1_TE (1u << 3)
#define USART_CR1_RXFNEIE (1u << 5)
#define USART_CR1_TCIE (1u << 6)
#define USART_CR1_CMIE (1u << 14)
#define USART_CR1_OVER8 (1u << 15)
#define USART_CR1_FIFOEN (1u << 29)
#define USART_CR2 0x04u
#define USART_CR2_ADD_SHIFT 24u /* the character to watch for */
#define USART_CR3 0x08u
#define USART_CR3_EIE (1u << 0)
#define USART_CR3_HDSEL (1u << 3)
#define USART_CR3_TXFTIE (1u << 23)
#define USART_CR3_RXFTCFG_SHIFT 25u /* 2: half of the FIFO is filled */
#define USART_CR3_RXFTIE (1u << 28)
#define USART_CR3_TXFTCFG_SHIFT 29u /* 2: half of the FIFO is free */
#define USART_BRR 0x0Cu
#define USART_ISR 0x1Cu
#define USART_ISR_ERRORS 0xFu /* parity, framing, noise, overrun */
#define USART_ISR_ORE (1u << 3)
#define USART_ISR_RXFNE (1u << 5)
#define USART_ISR_TC (1u << 6)
#define USART_ISR_TXFNF (1u << 7)
#define USART_ICR 0x20u
#define USART_ICR_TCCF (1u << 6)
#define USART_ICR_CMCF (1u << 17)
#define USART_RDR 0x24u
#define USART_TDR 0x28u

/* RNG, section 26 */
#define RNG_CR 0x50060800u
#define RNG_CR_RNGEN (1u << 2)
#define RNG_SR 0x50060804u
#define RNG_SR_DRDY (1u << 0)
#define RNG_SR_FAULTS 6u
#define RNG_DR 0x50060808u

/* IWDG, section 42: on the LSI, which nothing but a reset stops once it runs */
#define IWDG_KR 0x40003000u
#define IWDG_KR_START 0xCCCCu
#define IWDG_KR_ACCESS 0x5555u
#define IWDG_KR_FEED 0xAAAAu
#define IWDG_PR 0x40003004u
#define IWDG_RLR 0x40003008u
#define IWDG_SR 0x4000300Cu

/* WWDG, section 43: on PCLK1 */
#define WWDG_CR 0x40002C00u
#define WWDG_CR_WDGA (1u << 7)
#define WWDG_CFR 0x40002C04u
#define WWDG_CFR_EWI (1u << 9)
#define WWDG_CFR_WDGTB_SHIFT 11u
#define WWDG_SR 0x40002C08u

/* FDCAN, section 44. Instances 1 and 2; the message RAM has a fixed layout of 0x350 bytes an instance */
#define FDCAN(instance) (0x40006400u + (0x400u * (instance)))
#define FDCAN_RAM(instance) (0x4000A400u + (0x350u * (instance)))
#define FDCAN_DBTP 0x0Cu
#define FDCAN_CCCR 0x18u
#define FDCAN_CCCR_INIT (1u << 0)
#define FDCAN_CCCR_CCE (1u << 1)
#define FDCAN_CCCR_FDOE (1u << 8)
#define FDCAN_CCCR_BRSE (1u << 9)
#define FDCAN_CCCR_PXHD (1u << 12)
#define FDCAN_CCCR_TXP (1u << 14)
#define FDCAN_NBTP 0x1Cu
#define FDCAN_ECR 0x40u
#define FDCAN_PSR 0x44u
#define FDCAN_PSR_BO (1u << 7)
#define FDCAN_TDCR 0x48u
#define FDCAN_IR 0x50u
#define FDCAN_IR_RF0N (1u << 0)
#define FDCAN_IR_RF0L (1u << 2)
#define FDCAN_IR_BO (1u << 19)
#define FDCAN_IR_PEA (1u << 21)
#define FDCAN_IR_PED (1u << 22)
#define FDCAN_IE 0x54u
#define FDCAN_ILS 0x58u
#define FDCAN_ILE 0x5Cu
#define FDCAN_RXGFC 0x80u
#define FDCAN_RXF0S 0x90u
#define FDCAN_RXF0A 0x94u
#define FDCAN_TXBC 0xC0u
#define FDCAN_TXFQS 0xC4u
#define FDCAN_TXFQS_FULL (1u << 21)
#define FDCAN_TXBRP 0xC8u
#define FDCAN_TXBAR 0xCCu
#define FDCAN_TXBCR 0xD0u
#define FDCAN_RAM_FILTERS 0x000u
#define FDCAN_RAM_RX0 0x0B0u
#define FDCAN_RAM_TX 0x278u
#define FDCAN_ELEMENT 0x48u /* bytes of an element: two words and 64 bytes */

/* CRS, section 8: trims HSI48 */
#define CRS_CR 0x40002000u
#define CRS_CR_CEN (1u << 5)
#define CRS_CR_AUTOTRIMEN (1u << 6)
#define CRS_CFGR 0x40002004u
#define CRS_CFGR_RELOAD_SHIFT 0u
#define CRS_CFGR_FELIM_SHIFT 16u
#define CRS_CFGR_SYNCSRC_SHIFT 28u /* 2: start of frame of the USB */

/* USB FS device, section 45. Its registers and its packet memory take accesses of 16 bits */
#define USB_BASE 0x40005C00u
#define USB_EP(n) (USB_BASE + (4u * (n)))
#define USB_EP_EA 0x000Fu
#define USB_EP_STAT_TX 0x0030u
#define USB_EP_TX_STALL 0x0010u
#define USB_EP_TX_NAK 0x0020u
#define USB_EP_TX_VALID 0x0030u
#define USB_EP_DTOG_TX 0x0040u
#define USB_EP_CTR_TX 0x0080u
#define USB_EP_KIND 0x0100u
#define USB_EP_TYPE 0x0600u
#define USB_EP_TYPE_BULK 0x0000u
#define USB_EP_TYPE_CONTROL 0x0200u
#define USB_EP_TYPE_INTERRUPT 0x0600u
#define USB_EP_SETUP 0x0800u
#define USB_EP_STAT_RX 0x3000u
#define USB_EP_RX_STALL 0x1000u
#define USB_EP_RX_NAK 0x2000u
#define USB_EP_RX_VALID 0x3000u
#define USB_EP_DTOG_RX 0x4000u
#define USB_EP_CTR_RX 0x8000u
#define USB_CNTR 0x40005C40u
#define USB_CNTR_FRES 0x0001u
#define USB_CNTR_FSUSP 0x0008u
#define USB_CNTR_RESETM 0x0400u
#define USB_CNTR_SUSPM 0x0800u
#define USB_CNTR_WKUPM 0x1000u
#define USB_CNTR_PMAOVRM 0x4000u
#define USB_CNTR_CTRM 0x8000u
#define USB_ISTR 0x40005C44u
#define USB_ISTR_EP_ID 0x000Fu
#define USB_ISTR_RESET 0x0400u
#define USB_ISTR_SUSP 0x0800u
#define USB_ISTR_WKUP 0x1000u
#define USB_ISTR_PMAOVR 0x4000u
#define USB_ISTR_CTR 0x8000u
#define USB_DADDR 0x40005C4Cu
#define USB_DADDR_EF 0x0080u
#define USB_BTABLE 0x40005C50u
#define USB_BCDR 0x40005C58u
#define USB_BCDR_DPPU 0x8000u
#define USB_PMA 0x40006000u
#define USB_PMA_BYTES 1024u
#define USB_TABLE_TX_ADDRESS 0u
#define USB_TABLE_TX_COUNT 2u
#define USB_TABLE_RX_ADDRESS 4u
#define USB_TABLE_RX_COUNT 6u
#define USB_TABLE_COUNT 0x3FFu

/* Unique number of the part, 96 bits, section 47.1 */
#define UID 0x1FFF7590u

/* Cortex-M4: NVIC (B3.4), MPU (B3.5), DWT (C1.8) of the ARMv7-M manual */
#define NVIC_ISPR(number) (0xE000E200u + (4u * ((number) / 32u)))
#define MPU_CTRL 0xE000ED94u
#define MPU_RNR 0xE000ED98u
#define MPU_RBAR 0xE000ED9Cu
#define MPU_RASR 0xE000EDA0u
#define SCB_VTOR 0xE000ED08u

/* Interrupts, table 97 of RM0440 */
enum {
    IRQ_WWDG = 0, IRQ_PVD = 1, IRQ_USB_LP = 20, IRQ_FDCAN1 = 21, IRQ_USART1 = 37, IRQ_USART2 = 38, IRQ_USART3 = 39,
    IRQ_FDCAN2 = 86, IRQ_COUNT = 102
};

#endif
